import { growing } from './operations.mjs';

/** How much more an operation may take on the largest store than on the smallest. */
const MAY_GROW = 1.3;

const OPEN_MS = 30;
const WALK_BYTES = 100e6;
const DATABASE_RATIO = 0.15;

/**
 * Compares the figures with what is aimed at.
 *
 * @returns the comparisons, a row each; how operations grow; and the aims that are no comparison of times
 */
export function judge({ figures, databases, walk }, rows, counts) {
  const { overlite, full, containerd, predecessor } = figures;
  const compared = rows
    .map((row) => {
      const ours = overlite[row.name];
      const theirs = containerd[row.peer];
      const ratio = ours && theirs && ours.median / theirs.median;
      const atFull = full[row.name];
      const fullTheirs = containerd[row.fullPeer ?? row.peer];
      return {
        ...row,
        ours,
        theirs,
        ratio,
        met: ratio === undefined || row.target === undefined ? undefined : ratio <= row.target,
        full: atFull,
        fullTheirs,
        fullRatio: atFull && fullTheirs && atFull.median / fullTheirs.median,
        before: predecessor[row.name],
      };
    })
    .filter(({ ours }) => ours !== undefined);
  return { compared, growth: judgeGrowth(figures, counts), others: judgeOthers(overlite, databases, walk) };
}

function judgeGrowth({ overlite, containerd }, counts) {
  const [first] = counts;
  const last = counts.at(-1);
  return growing.flatMap(({ operation, title, grows, peer }) => {
    const small = overlite[`${operation}@${first}`];
    const large = overlite[`${operation}@${last}`];
    if (small === undefined || large === undefined) return [];
    const growth = large.median / small.median;
    const measured = counts.flatMap((count) => containerd[peer?.(count)] ?? []);
    const theirs = measured.length > 1 ? measured.at(-1).median / measured[0].median : undefined;
    return [{ title, growth, theirs, met: grows === true ? undefined : growth <= MAY_GROW }];
  });
}

function judgeOthers(overlite, databases, walk) {
  const aims = [];
  for (const { existing, bytes } of databases.overlite) {
    const theirs = databases.containerd.find((database) => database.existing === existing)?.bytes;
    const ratio = theirs && bytes / theirs;
    aims.push({
      title: `database of ${existing.toLocaleString('en')} snapshots`,
      value: `${(bytes / 1e6).toFixed(1)} MB${theirs ? ` beside ${(theirs / 1e6).toFixed(1)} MB, ${ratio.toFixed(3)}` : ''}`,
      met: existing === 100_000 && ratio ? ratio <= DATABASE_RATIO : undefined,
    });
  }
  const open = overlite['open@100000'];
  if (open) {
    aims.push({
      title: 'opening a store of 100,000',
      value: `${(open.median / 1000).toFixed(1)} ms`,
      met: open.median / 1000 < OPEN_MS,
    });
  }
  if (walk) {
    aims.push({
      title: 'memory that a walk over 1,000,000 takes',
      value: `${(walk.bytes / 1e6).toFixed(0)} MB, of ${(walk.peakBytes / 1e6).toFixed(0)} MB that its process has at its peak; ${(walk.milliseconds / 1000).toFixed(1)} s`,
      met: walk.bytes < WALK_BYTES,
    });
  }
  return aims;
}

/** Prints all of it as tables in Markdown, with times in microseconds. */
export function printReport({ figures, machine }, { compared, growth, others }) {
  console.log(`\n${Object.values(machine).join(' · ')}\n`);
  printTable(
    ['µs', 'overlite', 'p99', 'containerd', 'p99', 'ratio', 'target', 'met', 'full', 'ratio', 'predecessor'],
    compared.map((row) => [
      row.title,
      time(row.ours?.median),
      time(row.ours?.p99),
      time(row.theirs?.median),
      time(row.theirs?.p99),
      number(row.ratio),
      row.target ?? '',
      word(row.met),
      time(row.full?.median),
      number(row.fullRatio),
      time(row.before?.median),
    ]),
  );
  printTable(
    ['growth from the smallest store to the largest', 'overlite', 'containerd', 'met'],
    growth.map(({ title, growth: ours, theirs, met }) => [title, number(ours), number(theirs), word(met)]),
  );
  printTable(
    ['aim', 'measured', 'met'],
    others.map(({ title, value, met }) => [title, value, word(met)]),
  );
  for (const [what, some] of [
    ['floor', Object.values(figures.floor)],
    ['mounts', Object.values(figures.overlite).filter(({ name }) => name.startsWith('mounting/'))],
  ]) {
    printTable(
      [what, 'µs', 'p99'],
      some.map(({ name, median, p99 }) => [name, time(median), time(p99)]),
    );
  }
}

function printTable(head, rows) {
  if (rows.length === 0) return;
  const table = [head, ...rows].map((row) => row.map(String));
  const widths = head.map((_, column) => Math.max(3, ...table.map((row) => row[column].length)));
  const line = (cells) =>
    `| ${cells.map((cell, i) => (i === 0 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]))).join(' | ')} |`;
  const rule = `| ${widths.map((width, i) => (i === 0 ? '-'.repeat(width) : `${'-'.repeat(width - 1)}:`)).join(' | ')} |`;
  console.log([line(table[0]), rule, ...table.slice(1).map(line), ''].join('\n'));
}

function time(microseconds) {
  if (microseconds === undefined) return '';
  return microseconds.toLocaleString('en', { maximumSignificantDigits: microseconds < 100 ? 2 : 3 });
}

function number(ratio) {
  return ratio === undefined ? '' : ratio.toLocaleString('en', { maximumSignificantDigits: 2 });
}

function word(met) {
  return met === undefined ? '' : met ? 'yes' : 'NO';
}
