/** What Node, Deno and Bun have of `process`; browsers have none. */
declare const process: {
  cwd(): string;
  env: Record<string, string | undefined>;
  pid: number;
  versions?: { node?: string };
};
