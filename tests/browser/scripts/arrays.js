// Arrays on their way between a test and a page.

/** @param {Float32Array | Uint8Array} array */
export function encode(array) {
  let text = '';
  for (const byte of new Uint8Array(array.buffer, array.byteOffset, array.byteLength)) {
    text += String.fromCharCode(byte);
  }
  return btoa(text);
}

/** @param {string} text @returns {ArrayBuffer} */
export function decode(text) {
  return Uint8Array.from(atob(text), (character) => character.charCodeAt(0)).buffer;
}
