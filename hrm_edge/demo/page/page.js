// The page: one WebSocket brings the picture and the state; a camera of this device may send frames through it.
import { Board, Thought, drawBars } from "./board.js";

const $ = (id) => document.getElementById(id);
const digits = (text) => (text ? [...text].map(Number) : null);
const LONGEST_S = 30; // a replay takes no longer than this
const LONG_SIDE = 960; // pixels of a frame sent by this device's camera
const PHOTO_SIDE = 2048; // and of a photo

let socket = null, state = null, thought = null, fetching = false, wakeLock = null;
let step = 0, playing = false, timer = 0, stream = null;
const board = new Board($("board"));

// ---- connection ----
function connect(pause = 500) {
  socket = new WebSocket(new URL("live", location.href.replace(/^http/, "ws")));
  socket.binaryType = "blob";
  socket.onopen = () => { pause = 500; if (stream) socket.send("camera on"); };
  socket.onmessage = ({ data }) => (typeof data === "string" ? hear(JSON.parse(data)) : show(data));
  socket.onclose = () => {
    pill("waiting", "connection lost, trying again");
    setTimeout(connect, pause, Math.min(2 * pause, 8000));
  };
}

async function show(blob) {
  try {
    const image = await createImageBitmap(blob), canvas = $("picture");
    if (canvas.width !== image.width || canvas.height !== image.height) Object.assign(canvas, { width: image.width, height: image.height });
    canvas.getContext("2d").drawImage(image, 0, 0);
    image.close();
    $("empty").hidden = true;
  } finally {
    if (socket.readyState === WebSocket.OPEN) socket.send("shown");
  }
}

function hear(message) {
  if (message.camera) {
    if (message.what) notice(message.what);
    if (message.camera === "more") sendFrame();
    else stopCamera();
    return;
  }
  const before = state;
  state = message;
  pill(state.state, state.text);
  if (!before || before.state !== state.state) $("announce").textContent = state.text;
  if (!before) $("model").textContent = `${state.model.name}, ${(state.model.parameters / 1e6).toFixed(2)} M parameters, on ${state.model.backend}`;
  $("back").hidden = state.guest !== "photo";
  figures();
  follow();
}

function pill(kind, text) {
  $("pill").dataset.state = kind;
  $("text").textContent = text;
}

function notice(text) {
  $("notice").hidden = !text;
  $("notice").textContent = text || "";
}

// ---- the thought: fetched as it grows, replayed slowly enough to be seen ----
function follow() {
  const about = state.thought, notes = (state.board && state.board.notes) || [];
  board.doubt((state.board && state.board.doubtful) || []);
  $("doubts").hidden = !notes.length;
  $("doubts").textContent = notes.join("; ");
  if (!about) { if (!thought) board.show(digits(state.board && state.board.givens), null, 0, null); return; }
  if (!thought || thought.number !== about.number) {
    thought = new Thought(about.number, digits(state.board.givens));
    step = 0;
    play(true);
  }
  if (thought.steps < about.steps && !fetching) grow(thought);
  else if (about.done) render();
}

async function grow(one) {
  fetching = true;
  try {
    const answer = await fetch(`beliefs/${one.number}?from=${one.steps}`);
    if (answer.ok) one.append(await answer.arrayBuffer());
  } catch { /* the connection is lost: the socket says so */ } finally { fetching = false; }
  render();
}

function finished() {
  return state.thought && state.thought.done && thought.steps >= state.thought.steps;
}

function render() {
  if (!thought || !state || !state.thought) return;
  const last = Math.max(0, thought.steps - 1), proven = finished() && state.answer;
  step = Math.min(step, last);
  const atEnd = step === last;
  board.show(thought.givens, thought, step, proven && atEnd && !playing ? digits(state.answer) : null);
  drawBars($("bars"), thought, step, proven);
  Object.assign($("step"), { max: last, value: step, disabled: !thought.steps });
  $("step").setAttribute("aria-valuetext", `step ${step + 1} of ${thought.steps}`);
  $("play").disabled = !thought.steps;
  const view = thought.steps ? thought.view(step) : 0;
  $("where").textContent = thought.steps ? `step ${step + 1} of ${thought.steps}${view ? `, view ${view + 1} of the puzzle` : ""}` : "thinking";
  const verdict = !state.thought.done ? ["solving", "thinking"] : state.thought.verified
    ? ["solved", `✓ proven, ${state.thought.ms < 10 ? state.thought.ms : Math.round(state.thought.ms)} ms`] : ["unsolvable", "not solved"];
  [$("verdict").dataset.state, $("verdict").textContent] = verdict;
}

function play(on) {
  playing = on;
  clearTimeout(timer);
  $("play").toggleAttribute("data-on", on);
  $("play").setAttribute("aria-label", on ? "Pause" : "Play");
  if (on) timer = setTimeout(tick, Math.min(1 / Number($("speed").value), LONGEST_S / Math.max(1, thought ? thought.steps : 1)) * 1000);
}

function tick() {
  if (!thought || step < thought.steps - 1 || !finished()) {
    if (thought && step < thought.steps - 1) step++;
    play(true);
  } else play(false);
  render();
}

function toggle() {
  if (!playing && thought && step >= thought.steps - 1) step = 0;
  play(!playing);
  render();
}

function go(to) {
  play(false);
  step = Math.max(0, Math.min(to, thought ? thought.steps - 1 : 0));
  render();
}

// ---- figures ----
function figures() {
  const { figures: f, power, viewers } = state;
  if (!f.stages_ms) return;
  const ms = (stage) => (f.stages_ms[stage] ? [f.stages_ms[stage].p50.toFixed(1), `ms, p95 ${f.stages_ms[stage].p95.toFixed(0)}`] : ["–", ""]);
  const rows = [
    ["Camera", f.camera_fps.toFixed(0), "fps"], ["Processed", f.loop_fps.toFixed(0), "fps"],
    ["Locate, p50", ...ms("locate")], ["Read, p50", ...ms("read")], ["Draw, p50", ...ms("draw")],
    ["Seen to answered", f.answer_after_ms === null ? "–" : (f.answer_after_ms / 1000).toFixed(2), f.answer_after_ms === null ? "" : "s"],
    ["Dropped", f.dropped, `of ${f.received}`], ["Reconnects", f.reconnects, ""],
    ["Power", power.watts === null ? "–" : power.watts.toFixed(1), power.watts === null ? "no meter" : "W", power.meter], ["Viewers", viewers, ""],
  ];
  const list = $("list");
  rows.forEach(([name, value, unit, title], n) => {
    let row = list.children[n];
    if (!row) {
      row = list.appendChild(document.createElement("div"));
      row.append(document.createElement("dt"), document.createElement("dd"));
    }
    const text = `${value}|${unit}`;
    if (row.dataset.text === text) return;
    row.dataset.text = text;
    row.title = title || "";
    row.children[0].textContent = name;
    const small = document.createElement("small");
    small.textContent = ` ${unit}`;
    row.children[1].replaceChildren(String(value), small);
  });
}

// ---- this device's camera ----
async function startCamera() {
  notice("");
  if (!navigator.mediaDevices) {
    notice("This browser gives its camera only to pages over https or on localhost. Send a photo instead, or start the demo with --cert and --key.");
    return;
  }
  try {
    stream = await navigator.mediaDevices.getUserMedia({ audio: false, video: { facingMode: "environment", width: { ideal: 1280 } } });
  } catch (error) {
    const why = { NotAllowedError: "The camera was not allowed: allow it in the browser's address bar.", NotFoundError: "This device has no camera.", NotReadableError: "The camera is in use by another program." };
    notice(why[error.name] || `The camera does not start: ${error.message}`);
    return;
  }
  stream.getVideoTracks()[0].addEventListener("ended", stopCamera);
  const video = (stream.video = document.createElement("video"));
  Object.assign(video, { srcObject: stream, muted: true, playsInline: true });
  await video.play();
  cameraButton(true);
  if (navigator.wakeLock) wakeLock = await navigator.wakeLock.request("screen").catch(() => null);
  socket.send("camera on");
}

function stopCamera() {
  if (!stream) return;
  stream.getTracks().forEach((track) => track.stop());
  stream = null;
  cameraButton(false);
  if (wakeLock) wakeLock.release();
  wakeLock = null;
  if (socket.readyState === WebSocket.OPEN) socket.send("camera off");
}

function cameraButton(on) {
  $("camera").setAttribute("aria-pressed", on);
  $("camera").lastElementChild.textContent = on ? "Stop this camera" : "Use this device's camera";
}

const sheet = document.createElement("canvas");
function sendFrame() {
  if (!stream) return;
  const { video } = stream;
  let sent = false;
  const grab = () => {
    if (sent || !stream || !video.videoWidth) return;
    sent = true;
    const scale = Math.min(1, LONG_SIDE / Math.max(video.videoWidth, video.videoHeight));
    Object.assign(sheet, { width: Math.round(video.videoWidth * scale), height: Math.round(video.videoHeight * scale) });
    sheet.getContext("2d").drawImage(video, 0, 0, sheet.width, sheet.height);
    sheet.toBlob((blob) => { if (blob && socket.readyState === WebSocket.OPEN) socket.send(blob); }, "image/jpeg", 0.85);
  };
  if (video.requestVideoFrameCallback) video.requestVideoFrameCallback(grab);
  setTimeout(grab, video.requestVideoFrameCallback ? 400 : 40); // a tab in the background gets no callbacks
}

// ---- photos ----
// A phone's photo upright and no larger than is of use; what this browser cannot read goes as it is, for the server to say.
// What may be transparent goes as it is too: a JPEG would make that black.
async function smaller(file) {
  if (["image/png", "image/webp", "image/gif"].includes(file.type) && file.size < 8 << 20) return file;
  try {
    const image = await createImageBitmap(file);
    const scale = Math.min(1, PHOTO_SIDE / Math.max(image.width, image.height));
    const paper = Object.assign(document.createElement("canvas"), { width: Math.round(image.width * scale), height: Math.round(image.height * scale) });
    paper.getContext("2d").drawImage(image, 0, 0, paper.width, paper.height);
    image.close();
    return (await new Promise((done) => paper.toBlob(done, "image/jpeg", 0.92))) || file;
  } catch { return file; }
}

async function sendPhoto(file) {
  if (!file) return;
  notice("");
  stopCamera();
  try {
    const answer = await fetch("photo", { method: "POST", body: await smaller(file) });
    if (!answer.ok) {
      const { what, mend } = await answer.json();
      notice(`${what}: ${mend}`);
    }
  } catch { notice("The photo could not be sent: the connection is lost."); }
}

// ---- controls ----
$("camera").onclick = () => (stream ? stopCamera() : startCamera());
$("choose").onclick = () => $("photo").click();
$("photo").onchange = ({ target }) => { sendPhoto(target.files[0]); target.value = ""; };
$("back").onclick = () => fetch("photo", { method: "DELETE" });
$("play").onclick = toggle;
$("speed").onchange = () => play(playing);
$("step").oninput = ({ target }) => go(Number(target.value));
$("stage").ondragover = (event) => event.preventDefault();
$("stage").ondrop = (event) => { event.preventDefault(); sendPhoto(event.dataTransfer.files[0]); };

const dark = matchMedia("(prefers-color-scheme: dark)");
function theme(name) { document.documentElement.dataset.theme = name || (dark.matches ? "dark" : "light"); }
dark.onchange = () => theme(localStorage.theme);
theme(localStorage.theme);
$("theme").onclick = () => {
  localStorage.theme = document.documentElement.dataset.theme === "dark" ? "light" : "dark";
  theme(localStorage.theme);
};

const keys = {
  " ": toggle, ArrowLeft: () => go(step - 1), ArrowRight: () => go(step + 1), Home: () => go(0), End: () => go(Infinity),
  c: () => $("camera").click(), p: () => $("choose").click(), s: () => $("snapshot").click(), t: () => $("theme").click(),
};
document.addEventListener("keydown", (event) => {
  const busy = event.target.closest("input, select, button, a") && (event.key === " " || event.key.length > 1);
  const action = keys[event.key.length > 1 ? event.key : event.key.toLowerCase()];
  if (!action || busy || event.ctrlKey || event.metaKey || event.altKey) return;
  event.preventDefault();
  action();
});

connect();
