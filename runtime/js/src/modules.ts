import type * as saved from './saved.js';
import type { TextModel } from './text.js';

/** The module `kiln-runtime/text`. */
export interface TextModule {
  TextModel: typeof TextModel;
}

/** The module `kiln-runtime/saved`. */
export type SavedModule = Pick<typeof saved, 'read' | 'write'>;
