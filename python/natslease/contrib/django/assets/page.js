"use strict";

const EVERY = 2000; // milliseconds
const FORGET = 60_000; // a process that has told nothing for so long
const root = document.body.dataset;
const token = document.querySelector("[name=csrfmiddlewaretoken]").value;
const filter = document.getElementById("filter");
const before = new Map(); // of each queue, for its rates
const processes = new Map(); // each answer comes from one of them

const number = (n) => n.toLocaleString("en");

function age(seconds) {
  for (const [length, unit] of [[86400, "d"], [3600, "h"], [60, "min"]])
    if (seconds >= 2 * length) return `${Math.round(seconds / length)} ${unit}`;
  return `${Math.max(Math.round(seconds), 0)} s`;
}

function say(id, text) {
  const element = document.getElementById(id);
  element.textContent = text || "";
  element.hidden = !text;
}

// A row; each cell is a text, or [text, class], or an element. Texts are never read as HTML.
function row(table, cells) {
  const titles = [...table.tHead.rows[0].cells];
  const tr = document.createElement("tr");
  cells.forEach((cell, i) => {
    const td = document.createElement("td");
    td.className = titles[i].className;
    td.dataset.label = titles[i].textContent;
    if (cell instanceof Node) td.append(cell);
    else if (Array.isArray(cell)) {
      const span = document.createElement("span");
      [span.textContent, span.className] = cell;
      td.append(span);
    } else td.textContent = cell;
    tr.append(td);
  });
  return tr;
}

function fill(table, rows) {
  table.tBodies[0].replaceChildren(...rows);
  table.hidden = !rows.length;
  const none = table.parentElement.querySelector(".none");
  if (none) none.hidden = rows.length > 0;
}

function button(text, question, fields) {
  const element = document.createElement("button");
  element.textContent = text;
  element.addEventListener("click", () => ask(text, question, fields));
  return element;
}

function ask(verb, question, fields) {
  const dialog = document.getElementById("confirm");
  dialog.querySelector("p").textContent = question;
  dialog.querySelector(".danger").textContent = verb;
  dialog.returnValue = "no";
  dialog.addEventListener("close", () => dialog.returnValue === "yes" && act(fields), { once: true });
  dialog.showModal();
}

async function act(fields) {
  try {
    const answer = await fetch(root.act, {
      method: "POST",
      headers: { "X-CSRFToken": token },
      body: new URLSearchParams({ alias: alias(), ...fields }),
    });
    const told = await answer.json();
    say("done", told.done);
    say("error", told.error);
  } catch (error) {
    say("error", `The site does not answer: ${error.message}`);
  }
  refresh();
}

const alias = () => filter.elements.alias?.value ?? "default";

// What was published and what has left the stream since the answer before.
function rates(queue, at) {
  const key = queue.stream;
  const now = { at, published: queue.last_seq, left: queue.last_seq - queue.messages };
  const then = before.get(key);
  if (!then || at > then.at) before.set(key, now);
  if (!then || at <= then.at) return then?.shown ?? ["–", "–"];
  const per = (x) => Math.max(x / (at - then.at), 0).toFixed(1);
  now.shown = [per(now.published - then.published), per(now.left - then.left)];
  return now.shown;
}

function queueRow(table, queue, at) {
  const name = document.createElement("span");
  name.textContent = queue.stream;
  if (queue.consumer && queue.consumer !== queue.stream) {
    const small = document.createElement("small");
    small.textContent = ` ${queue.consumer}`;
    name.append(small);
  }
  const fields = { stream: queue.stream, subject: queue.subject, consumer: queue.consumer };
  const buttons = document.createElement("span");
  if (queue.dead)
    buttons.append(
      button("Requeue", `Make tasks again of the dead letters of ${queue.stream}?`, { ...fields, action: "requeue" }), " ");
  if (queue.messages)
    buttons.append(
      button("Purge", `Delete all ${number(queue.messages)} tasks of ${queue.stream}, leased ones, too?`, { ...fields, action: "purge" }));
  return row(table, [
    name,
    number(queue.pending),
    number(queue.leased),
    [number(queue.redelivered), queue.redelivered ? "warn" : ""],
    queue.dead === null ? "–" : [queue.dead >= 100 ? "100+" : number(queue.dead), queue.dead ? "bad" : ""],
    queue.oldest_at ? age(at - queue.oldest_at) : "–",
    ...rates(queue, at),
    buttons,
  ]);
}

function processRow(table, process) {
  const state = process.breaker === "closed" ? "good" : process.breaker === "open" ? "bad" : "warn";
  const told = (Date.now() - process.told) / 1000;
  return row(table, [
    process.name,
    process.connected ? [process.server, "good"] : [process.last_error || "not connected", process.last_error ? "bad" : ""],
    [process.breaker + (process.retry_after ? `, tries in ${process.retry_after.toFixed(1)} s` : ""), state],
    number(process.in_flight),
    `${process.waiting} of ${process.max_waiting}`,
    number(process.lost),
    told < 2.5 ? "now" : `${age(told)} ago`,
  ]);
}

function workerRow(table, worker, at) {
  const state = { online: "good", stale: "warn", offline: "bad" }[worker.status];
  const stop = worker.stopped
    ? document.createTextNode("stopped")
    : button("Stop", `Stop ${worker.name}? Its next call is refused, until it registers anew.`, { action: "stop", worker: worker.name });
  return row(table, [
    worker.name, [worker.status, state], `${age(at - worker.last_seen)} ago`, worker.holding || "–",
    number(worker.done), worker.rate.toFixed(1), stop,
  ]);
}

async function refresh() {
  const query = new URLSearchParams(new FormData(filter));
  let told;
  try {
    const answer = await fetch(`${root.data}?${query}`);
    told = await answer.json();
    if (!answer.ok) throw new Error(told.error ?? answer.statusText);
  } catch (error) {
    say("error", `The site does not answer: ${error.message}`);
    return;
  }
  say("error", told.error);
  const queues = document.getElementById("queues");
  if (!told.error) fill(queues, told.queues.map((queue) => queueRow(queues, queue, told.at)));
  if (told.workers) {
    const section = document.getElementById("workers");
    section.hidden = false;
    const table = section.querySelector("table");
    fill(table, told.workers.map((worker) => workerRow(table, worker, told.at)));
  }
  processes.set(told.process.name, { ...told.process, told: Date.now() });
  for (const [name, process] of processes) if (Date.now() - process.told > FORGET) processes.delete(name);
  const table = document.getElementById("processes");
  fill(table, [...processes.keys()].sort().map((name) => processRow(table, processes.get(name))));
  document.getElementById("at").textContent = new Date(told.at * 1000).toLocaleTimeString();
}

async function forever() {
  for (;;) {
    if (!document.hidden && !document.getElementById("confirm").open) await refresh();
    await new Promise((resolve) => setTimeout(resolve, EVERY));
  }
}

filter.addEventListener("submit", (event) => event.preventDefault());
filter.addEventListener("input", refresh);
forever();
