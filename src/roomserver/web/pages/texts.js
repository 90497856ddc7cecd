/**
 * Every text that people read, in one place. Functions take what varies.
 * @module
 */
const plural = (/** @type {number} */ n, /** @type {string} */ one, /** @type {string} */ many) =>
  `${n.toLocaleString()} ${n === 1 ? one : many}`;

export const texts = {
  brand: 'relaycore',
  shell: {
    skip: 'Skip to the content',
    navigation: 'Main',
    rooms: 'Rooms',
    broadcast: 'Broadcast',
    dashboard: 'Dashboard',
    theme: { system: 'Appearance: as the device', light: 'Appearance: light', dark: 'Appearance: dark' },
    dismiss: 'Dismiss',
    close: 'Close',
    cancel: 'Cancel',
  },
  home: {
    title: 'Rooms',
    lead: 'Live sound, straight from the desk.',
    enter: 'Enter a room',
    code: 'Room code',
    codeHint: 'Six letters and digits, from whoever runs the room.',
    go: 'Go',
    public: 'Public rooms',
    live: 'Live',
    waiting: 'Waiting',
    suspended: 'In a break',
    needsPassword: 'Needs a password',
    listeners: (/** @type {number} */ n) => plural(n, 'listener', 'listeners'),
    none: 'No public room is open right now.',
    noneHint: 'With a code you can enter any room that is not listed.',
    more: 'Show more',
    loading: 'Looking for rooms …',
    unnamed: (/** @type {string} */ code) => `Room ${code}`,
  },
  listen: {
    title: 'Listen',
    room: (/** @type {string} */ code) => `Room ${code}`,
    play: 'Play',
    stop: 'Stop',
    resume: 'Let it sound',
    password: 'Password',
    passwordHint: 'This room wants a password, or there is no room with this code.',
    nickname: 'Your name',
    nicknameHint: 'Optional. Whoever runs the room sees it.',
    code: 'Room code',
    change: 'Another room',
    volume: 'Volume',
    mute: 'Mute',
    unmute: 'Unmute',
    listeners: (/** @type {number} */ n) => plural(n, 'listener', 'listeners'),
    state: {
      idle: 'Not playing',
      joining: 'Entering …',
      connecting: 'Connecting …',
      waiting: 'Waiting for the broadcast',
      buffering: 'Filling the buffer …',
      held: 'Held back by the browser',
      live: 'Live',
      suspended: 'In a break',
      reconnecting: 'Reconnecting …',
      closed: 'Over',
    },
    about: {
      idle: 'Press play to listen.',
      joining: '',
      connecting: '',
      waiting: 'You are in. Sound begins by itself as soon as there is some.',
      buffering: '',
      held: 'It came this far, but the browser does not let this page sound. A press lets it.',
      live: '',
      suspended: 'The sound comes back by itself when the broadcast goes on.',
      reconnecting: 'The connection was lost. It comes back by itself.',
      closed: '',
    },
    /** The page came, and no connection for the sound ever did. */
    unconnected: {
      https:
        'The page came, but no connection for the sound comes about. iPhones and iPads refuse one to a server '
        + 'whose certificate they do not know, even after the warning was passed. Ask whoever runs the server '
        + 'for another address: of plain http, or with a certificate that this device knows. It is tried on and on.',
      http:
        'The page came, but no connection for the sound comes about: something on the way may not let it '
        + 'through. Try another network, or ask whoever runs the server. It is tried on and on.',
    },
    until: (/** @type {string} */ time) => `The room waits until ${time}.`,
    delay: 'Delay',
    quality: {
      label: 'Connection',
      excellent: 'Excellent',
      good: 'Good',
      fair: 'Fair',
      poor: 'Poor',
      unknown: '–',
    },
    figures: {
      title: 'Connection in figures',
      latency: 'Delay from the desk to your ear',
      buffer: 'Buffer (target)',
      jitter: 'Jitter of the network',
      roundTrip: 'Round trip',
      drift: 'Your clock against the broadcast',
      missing: 'Frames missing',
      concealed: 'Concealed',
      underruns: 'Times the sound ran dry',
      reconnects: 'Reconnects',
      received: 'Received',
      monitoring:
        'This is for monitoring and listening along. Network and buffer take their time: it is no '
        + 'replacement for in-ear monitoring on stage.',
    },
    options: {
      title: 'Options',
      awake: 'Keep the screen on while playing',
      awakeMissing: 'Needs HTTPS.',
    },
    missing: {
      title: 'Something is missing',
      http:
        'This page came over plain http. Browsers keep their audio engine for https, so you hear the '
        + 'stereo mix in a simpler way: with more delay, and without mixing channels on this device. '
        + 'Ask for an https address of this server for all of it.',
      audio_worklet:
        'This browser has no AudioWorklet: you hear the stereo mix in a simpler way, with more delay, and '
        + 'without mixing channels on this device. A newer browser has it.',
      secure_context: 'This page came over plain http: browsers keep the screen’s wake lock for https.',
    },
    closed: {
      kicked: 'You were asked to leave.',
      banned: 'You may not enter this room any more.',
      room_closed: 'The room was closed.',
      closed_by_owner: 'The room was closed by whoever runs it.',
      closed_by_admin: 'The room was closed by an administrator.',
      owner_disabled: 'The room was closed.',
      source_gone: 'The broadcast ended and did not come back.',
      expired: 'The break was too long, and the room was closed.',
      token_invalid: 'Your permission to listen is over. Press play to enter again.',
      token_expired: 'Your permission to listen is over. Press play to enter again.',
    },
    mixChanged: 'Your mix was changed by whoever runs the room.',
  },
  mixer: {
    title: 'Mixer',
    server: 'Stereo from the server',
    serverHint: 'One stereo stream, mixed for you by the server. Little data; faders act after the delay.',
    multichannel: 'Mix on this device',
    multichannelHint: 'All channels come here, and faders act at once. Needs a fast connection.',
    mode: 'Where it is mixed',
    channel: (/** @type {number} */ n) => `Channel ${n}`,
    fader: (/** @type {string} */ name) => `Level of ${name}`,
    pan: (/** @type {string} */ name) => `Pan of ${name}`,
    mute: (/** @type {string} */ name) => `Mute ${name}`,
    solo: (/** @type {string} */ name) => `Solo ${name}`,
    master: 'Master',
    off: 'off',
    db: (/** @type {number} */ db) =>
      `${db > 0 ? '+' : db < 0 ? '−' : ''}${Math.abs(db).toFixed(1)} dB`,
    centre: 'centre',
    left: (/** @type {number} */ percent) => `${percent} left`,
    right: (/** @type {number} */ percent) => `${percent} right`,
    reset: 'Reset',
    resetHint: 'All faders to 0 dB, pans to the centre, nothing muted or solo',
    unsolo: 'Solo off',
    waiting: 'The strips appear when the broadcast has begun.',
    help: 'Drag to move; with Shift, or with the finger moved aside, in fine steps. A double-click, or two '
      + 'taps, set back. Keys: arrows, Page Up and Down, Home, End, and 0 to set back.',
  },
  presets: {
    title: 'Presets',
    choose: 'Preset',
    none: 'No presets yet',
    save: 'Save …',
    load: 'Load',
    delete: 'Delete',
    name: 'Name of the preset',
    saved: (/** @type {string} */ name) => `“${name}” is saved.`,
    loaded: (/** @type {string} */ name) => `“${name}” is in force.`,
    deleted: (/** @type {string} */ name) => `“${name}” is deleted.`,
    saveTitle: 'Save this mix',
    saveButton: 'Save',
  },
  /** What went wrong, by the `code` of a RelayError. */
  errors: {
    unreachable: 'The server does not answer. Check the connection and try again.',
    invalid_credentials: 'There is no such room, or the password is wrong.',
    banned: 'You may not enter this room.',
    room_closed: 'The room was closed.',
    room_full: 'The room is full. Try again in a while.',
    room_not_found: 'There is no such room.',
    rate_limited: 'Too many attempts. Wait a little and try again.',
    too_many_connections: 'Too many connections at once. Wait a little and try again.',
    too_many_presets: 'There are 100 presets already. Delete one first.',
    preset_not_found: 'There is no such preset any more.',
    database_away: 'That is not possible at the moment. Try again in a little while.',
    busy: 'The server is busy. Try again in a moment.',
    shutting_down: 'The server is restarting. Try again in a moment.',
    wrong_server: 'The room is on another server.',
    other: (/** @type {string} */ detail) => `That did not work: ${detail}.`,
  },
  in: (/** @type {number} */ s) => `Possible again in ${s < 90 ? `${Math.ceil(s)} s` : `${Math.ceil(s / 60)} min`}.`,
};

/**
 * What to tell people of an error.
 * @param {{ code?: string, detail?: string, message?: string, retryAfter?: number }} error
 */
export function describeError(error) {
  const known = /** @type {Record<string, unknown>} */ (texts.errors)[error.code ?? ''];
  const text = typeof known === 'string'
    ? known
    : texts.errors.other((error.detail || error.message || String(error)).replace(/\.$/, ''));
  return error.retryAfter ? `${text} ${texts.in(error.retryAfter)}` : text;
}
