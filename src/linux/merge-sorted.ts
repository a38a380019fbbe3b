/** Merges lists of texts, each of which is sorted, into one sorted series. */
export function mergeSorted(lists: readonly string[][]): Iterator<string, void> {
  const [first = [], ...others] = lists;
  if (others.length === 0) return first.values() as Iterator<string, void>;
  const middle = lists.length >> 1;
  return merge(mergeSorted(lists.slice(0, middle)), mergeSorted(lists.slice(middle)));
}

function* merge(
  left: Iterator<string, void>,
  right: Iterator<string, void>,
): Generator<string, void, undefined> {
  let a = left.next();
  let b = right.next();
  while (a.done !== true && b.done !== true) {
    if (a.value < b.value) {
      yield a.value;
      a = left.next();
    } else {
      yield b.value;
      b = right.next();
    }
  }
  for (; a.done !== true; a = left.next()) yield a.value;
  for (; b.done !== true; b = right.next()) yield b.value;
}
