// Draws how long operations take on stores of different sizes, both scales logarithmic, a panel for each operation.

const charts = [
  { operation: 'prepare', title: 'prepare', peer: 'overlay/prepare' },
  { operation: 'remove-and-delete', title: 'remove with deletion', peer: 'overlaysync/remove' },
  { operation: 'cleanup', title: 'cleanup, nothing to do', peer: 'overlaysync/cleanup' },
  { operation: 'stat', title: 'stat', peer: 'overlay/stat' },
  { operation: 'list-parent', title: 'list by parent', peer: 'meta/walk_parent' },
  { operation: 'list-all', title: 'list everything', peer: 'overlay/walk' },
];

const COLUMNS = 3;
const WIDTH = 300;
const HEIGHT = 220;
const LEFT = 58;
const TOP = 34;
const PLOT_WIDTH = WIDTH - LEFT - 32;
const PLOT_HEIGHT = HEIGHT - TOP - 34;
const LEAST_US = 1;
const MOST_US = 1e6;

const style = `
  svg { background: #fff; font: 11px system-ui, sans-serif }
  text { fill: #57606a } .title { fill: #1f2328; font-weight: 600; font-size: 12px }
  .grid { stroke: #d8dee4; stroke-width: 1 } path { fill: none; stroke-width: 2 }
  .ours { stroke: #0969da; fill: #0969da } .theirs { stroke: #bc4c00; fill: #bc4c00 }
  path.ours, path.theirs { fill: none } tspan { stroke: none; font-weight: 600 }
  @media (prefers-color-scheme: dark) {
    svg { background: #0d1117 } text { fill: #8b949e } .title { fill: #e6edf3 } .grid { stroke: #30363d }
    .ours { stroke: #58a6ff; fill: #58a6ff } .theirs { stroke: #f0883e; fill: #f0883e }
  }`;

/** Draws the figures of stores of those sizes. @returns an SVG */
export function drawGrowth({ figures }, counts) {
  const panels = charts.map(({ operation, title, peer }, index) => {
    const ours = points(counts, (count) => figures.overlite[`${operation}@${count}`]);
    const theirs = points(counts, (count) => figures.containerd[`${peer}${suffix(count)}`]);
    const x = (index % COLUMNS) * WIDTH;
    const y = Math.floor(index / COLUMNS) * HEIGHT + 30;
    const lines = `${draw(theirs, counts, 'theirs')}${draw(ours, counts, 'ours')}`;
    return `<g transform="translate(${x} ${y})">${frame(title, counts)}${lines}</g>`;
  });
  const width = COLUMNS * WIDTH;
  const height = Math.ceil(charts.length / COLUMNS) * HEIGHT + 36;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>How long operations take on stores of ${counts[0]} to ${counts.at(-1)} snapshots</title>
<style>${style}
</style>
<text x="${LEFT}" y="20">median time by the number of snapshots in the store:
<tspan class="ours" dx="4">overlite</tspan>, <tspan class="theirs" dx="4">containerd</tspan></text>
${panels.join('\n')}
</svg>
`;
}

const suffix = (count) => (count >= 1000 ? `_${count / 1000}k` : `_${count}`);

function points(counts, figureAt) {
  return counts.flatMap((count) => {
    const figure = figureAt(count);
    return figure === undefined ? [] : [{ count, median: figure.median }];
  });
}

function acrossOf(count, counts) {
  const [first] = counts;
  return LEFT + (Math.log(count / first) / Math.log(counts.at(-1) / first)) * PLOT_WIDTH;
}

function downOf(microseconds) {
  const share = Math.log(Math.max(microseconds, LEAST_US) / LEAST_US) / Math.log(MOST_US / LEAST_US);
  return TOP + (1 - share) * PLOT_HEIGHT;
}

function frame(title, counts) {
  const times = [
    [1, '1 µs'],
    [100, '100 µs'],
    [1e4, '10 ms'],
    [1e6, '1 s'],
  ];
  const rules = times.map(([microseconds, label]) => {
    const y = downOf(microseconds).toFixed(1);
    return `<line class="grid" x1="${LEFT}" x2="${LEFT + PLOT_WIDTH}" y1="${y}" y2="${y}"/><text x="${LEFT - 6}" y="${y}" dy="4" text-anchor="end">${label}</text>`;
  });
  const ticks = counts
    .filter((count) => Number.isInteger(Math.log10(count)))
    .map(
      (count) =>
        `<text x="${acrossOf(count, counts).toFixed(1)}" y="${TOP + PLOT_HEIGHT + 16}" text-anchor="middle">${count.toLocaleString('en')}</text>`,
    );
  return `<text class="title" x="${LEFT}" y="${TOP - 12}">${title}</text>${rules.join('')}${ticks.join('')}`;
}

function draw(some, counts, side) {
  if (some.length === 0) return '';
  const at = some.map(({ count, median }) =>
    [acrossOf(count, counts), downOf(median)].map((n) => n.toFixed(1)),
  );
  const dots = at.map(([x, y]) => `<circle class="${side}" cx="${x}" cy="${y}" r="2.5"/>`);
  return `<path class="${side}" d="M${at.map((point) => point.join(' ')).join('L')}"/>${dots.join('')}`;
}
