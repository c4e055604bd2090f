// Runs natslease in Node: publishes tasks, reserves and acknowledges them, and prints what is left.
//
//   node node.mjs natslease.wasm ws://localhost:8080
import { readFile } from "node:fs/promises";
import "./wasm_exec.js"; // of the Go that has compiled natslease.wasm

const [, , file, url] = process.argv;
const began = performance.now();
const go = new Go();
const { instance } = await WebAssembly.instantiate(await readFile(file), go.importObject);
go.run(instance);
const client = await natslease(url);
const started = performance.now() - began;

const published = await client.publish("images", ["one", "two", "three"]);
const leases = await client.reserve("images", 10, 1.0);
const statuses = await client.ack("images", leases.map((lease) => lease.ackSubject));
let refused;
try {
  await client.reserve("nowhere", 1, 0);
} catch (error) {
  refused = error.code;
}
const [queue] = await client.queues("images");
await client.close();
console.log(
  JSON.stringify({
    published,
    data: leases.map((lease) => lease.data),
    statuses,
    refused,
    left: queue.messages,
    started: Math.round(started),
  }),
);
process.exit(0); // Go's main never ends
