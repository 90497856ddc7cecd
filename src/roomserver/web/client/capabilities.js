// What a browser offers to a page that plays.

/** What this page may use, and what it may not. */
export function findCapabilities() {
  const secureContext = globalThis.isSecureContext;
  const worklet = 'audioWorklet' in AudioContext.prototype;
  const sharedMemory = globalThis.crossOriginIsolated === true;
  /** @type {('secure_context' | 'audio_worklet')[]} */
  const missing = [];
  if (!secureContext) missing.push('secure_context');
  if (!worklet) missing.push('audio_worklet');
  const fallback = /** @type {'none' | 'buffer-sources'} */ (worklet ? 'none' : 'buffer-sources');
  return { secureContext, worklet, sharedMemory, fallback, missing };
}
