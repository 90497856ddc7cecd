// The frames that a peer sends, and when: the relay's message, every tick on an absolute deadline.

const HEADER_BYTES = 32;

/** `--name value` pairs of the command line. */
export function options() {
  const words = process.argv.slice(2);
  return Object.fromEntries(
    words.flatMap((word, i) => (word.startsWith("--") ? [[word.slice(2), words[i + 1]]] : [])));
}

/** Says where listeners come to, and ends with standard input. */
export function listening(port) {
  console.log(JSON.stringify({ event: "listening", port }));
  process.stdin.on("end", () => process.exit(0));
  process.stdin.resume();
}

/** Calls `send` with each message when it is due; late ones at once, none is left out. */
export function stream({ message, "tick-us": tickUs, "max-seconds": maxSeconds }, send) {
  const bytes = new Uint8Array(Number(message)).fill(0x5a);
  const header = new DataView(bytes.buffer);
  bytes.fill(0, 0, HEADER_BYTES);
  bytes.set([1, 2]); // version, kind
  header.setUint16(4, 1, true); // stream
  header.setUint16(6, 2, true); // channels
  const start = performance.now();
  const unixMs = performance.timeOrigin + start;
  const tickMs = Number(tickUs) / 1000;
  let sequence = 0;
  const next = () => {
    for (;;) {
      const since = sequence * tickMs;
      if (since > Number(maxSeconds) * 1000) process.exit(0);
      const wait = start + since - performance.now();
      if (wait > 0) return setTimeout(next, wait);
      header.setUint32(8, sequence, true);
      header.setBigUint64(16, BigInt(sequence), true);
      header.setBigUint64(24, BigInt(Math.round((unixMs + since) * 1000)), true);
      send(Uint8Array.from(bytes)); // what is sent later may not change
      sequence += 1;
    }
  };
  next();
}
