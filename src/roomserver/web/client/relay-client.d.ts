/**
 * The browser client of relaycore rooms. See docs/browser.md.
 *
 * Events are CustomEvents; what their `detail` holds is told beside each. Times are milliseconds,
 * levels dBFS, faders linear.
 */

/** A refusal of the server, or something that this browser could not do; the text is for people. */
export class RelayError extends Error {
  /** Stable, snake_case: of a problem document (docs/http.md), an `error` (docs/protocol.md), or ours. */
  code: string;
  /** HTTP status, or the code that a WebSocket was closed with. */
  status?: number;
  detail?: string;
  /** Seconds. */
  retryAfter?: number;
  /** Where to go instead (`wrong_server`). */
  url?: string;
}

/** Faders 0 … 4, pans -1 (left) … 1 (right). Lists shorter than the room: 1, 0, false for the rest. */
export type Mix = {
  faders?: number[];
  pans?: number[];
  mutes?: boolean[];
  solos?: boolean[];
  master?: number;
};
export type RoomState = 'waiting' | 'active' | 'suspended' | 'closed';
export type Joined = {
  roomId: string;
  roomToken: string;
  roomName: string;
  listenerCount: number;
  state: RoomState;
};

/**
 * `POST /auth/room/join`; follows a 421 `wrong_server` to its url. `roomCode` may be the room's id.
 *
 * @returns The answer, and the server that has the room.
 * @throws RelayError
 */
export function joinRoom(
  server: string | URL,
  request: {
    roomCode: string;
    password?: string;
    invite?: string;
    nickname?: string;
    accessToken?: string;
  },
): Promise<Joined & { server: string }>;

export type Capabilities = {
  secureContext: boolean;
  worklet: boolean;
  sharedMemory: boolean;
  /** What plays where there is no worklet. */
  fallback: 'none' | 'buffer-sources';
  /**
   * What this page does not have. Without a secure context (https, or localhost) browsers give no
   * AudioWorklet, microphone or wake lock; without AudioWorklet there is no mixing here, and more delay.
   */
  missing: ('secure_context' | 'audio_worklet')[];
};

/** What this page may use; also before there is a listener. */
export function findCapabilities(): Capabilities;

/** `suspended` is the room's; sound that the browser holds back is `buffering`, reason `audio_suspended`. */
export type PlayerState =
  | 'idle'
  | 'connecting'
  | 'waiting'
  | 'buffering'
  | 'live'
  | 'suspended'
  | 'reconnecting'
  | 'closed';
export type Quality = 'excellent' | 'good' | 'fair' | 'poor' | 'unknown';
export type ListenerStatistics = {
  /**
   * From the server's sending a sample to its being heard: network, buffer, and the delay of browser
   * and device as far as they tell it. NaN while nothing is heard or the clocks do not agree yet.
   */
  latencyMs: number;
  /** What of it the player holds back on purpose. */
  bufferMs: number;
  targetMs: number;
  /** Of arrivals, as RFC 3550 smooths it. */
  jitterMs: number;
  /** How much faster the source's clock is than the device's, in parts per million. */
  driftPpm: number;
  /** NaN until it is known. */
  rttMs: number;
  framesReceived: number;
  /** That the server left out. */
  framesMissing: number;
  /** Per channel, at the source's rate: made up because nothing was there in time. */
  concealedSamples: number;
  underruns: number;
  bytesReceived: number;
  reconnects: number;
  /** By what was missing in the last ten seconds, delay as far as the player, and jitter. */
  quality: Quality;
};
export type Format = {
  stream: number;
  channelCount: number;
  channelNames: string[];
  sampleRate: number;
  frameMs: number;
};

export class Listener extends EventTarget {
  constructor(options: {
    /** By default the page's own. */
    server?: string | URL;
    roomId: string;
    roomToken: string;
    nickname?: string;
    /** `mix` (default): the server mixes, one stereo stream. `multichannel`: mixed here. */
    mode?: 'mix' | 'multichannel';
    mix?: Mix;
    /** Indices; null: all. */
    channels?: number[] | null;
    /** A fixed target; adaptive when absent. */
    bufferMs?: number;
    /** Of the frames; `pcm_s16le` unless told. */
    encoding?: 'pcm_s16le' | 'pcm_f32le';
    /**
     * Asked when the token is no longer good: joins anew. Rejected with `unreachable`, 429, 5xx or a
     * TypeError (what `fetch` throws) it is asked again in a while, by `retryAfter`; with anything
     * else that is the end.
     */
    rejoin?: () => Promise<{ roomToken: string }>;
    /** Used instead of one of its own, and not closed. */
    audioContext?: AudioContext;
  });
  /** Event `statechange` {state, reason?}. */
  readonly state: PlayerState;
  /** Event `room` {the same}. `suspendedUntil`: Unix µs. */
  readonly room: {
    roomId: string;
    roomName: string;
    listenerCount: number;
    hasBroadcaster: boolean;
    state: RoomState;
    suspendedUntil: number | null;
  };
  /** Of the source; null before there was one. Event `format` {the same}. */
  readonly format: Format | null;
  readonly mode: 'mix' | 'multichannel';
  /** In force; lists of one length, as long as the format has channels or longer. Event `mix` {mix, by: 'self' | 'owner' | 'preset'}. */
  readonly mix: Required<Mix>;
  readonly capabilities: Capabilities;
  /** Event `statistics` {the same}, once a second. */
  readonly statistics: ListenerStatistics;
  /** What is heard, before the volume. After `start()`. */
  readonly output: AudioNode;
  readonly audioContext: AudioContext | null;
  /**
   * Starts audio and connects: from a user's gesture. Resolves when it is under way.
   * @throws RelayError `player_failed`: the browser could not load the worklet
   */
  start(): Promise<void>;
  stop(): Promise<void>;
  /** Linear, of this listener alone. */
  volume: number;
  muted: boolean;
  /** @throws RelayError `not_supported`: `multichannel` needs the worklet. */
  setMode(mode: 'mix' | 'multichannel'): Promise<void>;
  /** What is named changes: at once what is mixed here, coalesced to the server. A list is a whole list. */
  setMix(change: Mix): void;
  /** @throws RelayError `preset_not_found`, `too_many_presets`, `database_away`, `rate_limited`, `unreachable` */
  savePreset(name: string): Promise<void>;
  loadPreset(name: string): Promise<Mix>;
  deletePreset(name: string): Promise<void>;
  listPresets(): Promise<string[]>;
  /** Newest levels; NaN where unknown. Cheap, and always the same object. Channels before the fader. */
  levels(): {
    master: { peak: [number, number]; rms: [number, number] };
    channels: { peak: Float32Array; rms: Float32Array };
  };
  // event `closed` {code, reason, status?}: it will not come back by itself (kicked, banned, room
  //   closed, token refused and no `rejoin`)
  // event `error` {error: RelayError}: told, and it goes on
  // event `token` {roomToken, expiresAt}: the server renewed the room token, for whoever keeps it;
  //   `expiresAt` in Unix µs
}

/** As the server says it (docs/protocol.md): milliseconds; lists are samples by channel. */
export type SourceStatus = {
  fillMs: number;
  targetMs: number;
  jitterMs: number;
  driftPpm: number;
  captureOffsetUs: number | null;
  listenerCount: number;
  received: number[];
  late: number[];
  duplicate: number[];
  lost: number[];
  concealed: number[];
};

/** One source of channels. */
export type Input = {
  readonly kind: 'device' | 'tab' | 'file' | 'tone' | 'node';
  readonly name: string;
  readonly channelCount: number;
  /** Which channel of the room each of its channels is. */
  readonly channels: readonly number[];
  /** Linear. */
  gain: number;
  muted: boolean;
  /** By itself: the device is gone (it is taken again when it returns), the file is over or broke. */
  ended: boolean;
  /** By the system or the device: a call, a switch on the microphone. It is silent for as long. */
  readonly silenced: boolean;
};

export class Broadcaster extends EventTarget {
  /** @throws RelayError `insecure_context`: broadcasting needs https, or localhost. */
  constructor(options: {
    server?: string | URL;
    roomId: string;
    /** A broadcaster's. */
    roomToken: string;
    /** Asked when the token is no longer good; as `rejoin` of a listener. */
    renewToken?: () => Promise<{ roomToken: string }>;
    /** 5, 10, 20 (default), 40 or 60. */
    frameMs?: number;
    /** Of the server's jitter buffer, 1–1000; adaptive when absent. */
    bufferMs?: number;
    /** `pcm_s16le` unless told. */
    encoding?: 'pcm_s16le' | 'pcm_f32le';
    audioContext?: AudioContext;
  });
  /** Event `statechange` {state, reason?}. `suspended`: the owner suspended the room; it is tried again. */
  readonly state: 'idle' | 'connecting' | 'live' | 'reconnecting' | 'suspended' | 'closed';
  readonly audioContext: AudioContext;
  /** In the order in which they were added. Event `inputs` {the same}: also when one ended, came back, was silenced. */
  readonly inputs: Input[];
  /**
   * getUserMedia, with all processing off unless told. '' is the default device. `channels`: which of
   * its channels, from 0; all unless told.
   * @throws RelayError `not_allowed`, `device_not_found`, `device_failed`, `channel_not_found`,
   *   `too_many_channels`
   */
  addDevice(
    deviceId: string,
    options?: {
      name?: string;
      channelCount?: number;
      channels?: number[];
      echoCancellation?: boolean;
    },
  ): Promise<Input>;
  /** getDisplayMedia with sound. @throws RelayError `not_allowed`, `no_audio` */
  addTab(): Promise<Input>;
  /**
   * Any file that the browser plays, of any length; looped unless told, with a gap of some milliseconds.
   * @throws RelayError `not_audio`, `gesture_needed` (the browser lets no sound run before a gesture),
   *   `not_supported` (the audio engine does not load), `too_many_channels`
   */
  addFile(file: Blob & { name?: string }, options?: { loop?: boolean }): Promise<Input>;
  /** `level` in dBFS, -20 unless told. */
  addTone(options: { frequency: number; name?: string; level?: number }): Input;
  /** Of this broadcaster's `audioContext`; its first `channelCount` channels. */
  addNode(node: AudioNode, channelCount: number, name?: string): Input;
  /**
   * Channels behind it move up. While live, other channels begin another stream; without any the
   * broadcast goes on as it was, silent, until an input is added.
   */
  removeInput(input: Input): void;
  /**
   * Other places for the room's channels: `order` has the present index of each channel to be. What
   * is added goes to the end. While live it begins another stream, in which every sample is where the
   * new order has it; what listeners have set stays with the index.
   * @throws RangeError it has not every channel once
   */
  reorderChannels(order: readonly number[]): void;
  readonly channelNames: string[];
  /** Of at most 64 characters. Sent when it registers. */
  renameChannel(index: number, name: string): void;
  /**
   * Goes live; resolves when the server has the source.
   * @throws RelayError the refusal, `no_inputs`, `not_supported` (the audio engine does not load), or
   *   `stopped`: by `stop()`, before it was live
   */
  start(): Promise<void>;
  /** What was sent is played out. Inputs stay. */
  stop(): Promise<void>;
  /** Stops, and lets go of inputs and audio for good. */
  close(): Promise<void>;
  /** Event `status` {the same}, once a second. */
  readonly status: SourceStatus | null;
  /** Event `statistics` {the same}, once a second. Packets are dropped, whole, when the uplink is too slow. */
  readonly statistics: {
    packetsSent: number;
    bytesSent: number;
    bufferedBytes: number;
    rttMs: number;
    droppedPackets: number;
  };
  /**
   * Newest levels by channel, before going live too. Always the same object. `clipped` stays 1 until
   * it is reset.
   */
  levels(): { peak: Float32Array; rms: Float32Array; clipped: Uint8Array };
  resetClipped(channel: number): void;
  // event `audio` {running}: whether the browser lets sound run; nothing is sent while it does not
  // event `room` {type: 'roomChanged' | 'roomClosed', …}, event `closed` {code, reason, status?},
  // event `error` {error: RelayError}
}
