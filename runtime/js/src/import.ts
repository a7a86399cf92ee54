/** Imports, where it runs, what bundlers must not look for: modules of Node's, and packages that a host may have. */
export function importHere(name: string) {
  // build.mjs sees to it that the two comments outlive minification.
  return import(/* @vite-ignore */ /* webpackIgnore: true */ name);
}
