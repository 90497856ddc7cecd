// `ws` on Node: as its documentation broadcasts, `send` to each client that is open.
import { createRequire } from "node:module";
import { listening, options, stream } from "./frames.mjs";

const given = options();
const { WebSocketServer, WebSocket } = createRequire(`${given.packages}/`)("ws");

const server = new WebSocketServer({
  host: "127.0.0.1", port: 0, perMessageDeflate: false, backlog: 1024,
});
server.on("listening", () => {
  listening(server.address().port);
  stream(given, (message) => {
    for (const client of server.clients)
      if (client.readyState === WebSocket.OPEN) client.send(message, { binary: true });
  });
});
