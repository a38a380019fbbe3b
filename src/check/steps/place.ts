import { findOpenAncestor } from '../../layers/ancestors.ts';
import type { CheckContext } from '../context.ts';

/** Checks the directories above the root: whoever can replace one of them can replace the whole store. */
export function checkPlace({ layout, problems }: CheckContext): void {
  const found = findOpenAncestor(layout.root);
  if (found !== undefined) problems.add('root-replaceable', found);
}
