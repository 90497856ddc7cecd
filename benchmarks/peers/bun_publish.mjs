// Bun's server (uWebSockets inside): everyone subscribes to one topic, and each frame is published.
import { listening, options, stream } from "./frames.mjs";

const server = Bun.serve({
  hostname: "127.0.0.1",
  port: 0,
  fetch: (request, own) => (own.upgrade(request) ? undefined : new Response("", { status: 400 })),
  websocket: {
    perMessageDeflate: false,
    open: (socket) => socket.subscribe("frames"),
    message: () => {},
  },
});
listening(server.port);
stream(options(), (message) => server.publish("frames", message));
