/** Gives memory back where the host can, which leaves `bytes` empty: a collector would let many pieces pile up. */
export function free(bytes: Uint8Array): void {
  (bytes.buffer as ArrayBuffer & { transfer?(length: number): ArrayBuffer }).transfer?.(0);
}
