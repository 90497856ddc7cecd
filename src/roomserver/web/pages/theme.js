// Light or dark, before anything is drawn: a plain script in the head, so that no page flashes.
// "system" follows the device; what somebody chose is kept in this browser (shell.js).
(() => {
  let chosen = null;
  try {
    chosen = JSON.parse(localStorage.getItem('relaycore:theme') ?? 'null');
  } catch {
    // The browser keeps nothing for us.
  }
  document.documentElement.dataset.theme = ['light', 'dark'].includes(chosen) ? chosen : 'system';
})();
