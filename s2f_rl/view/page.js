// What is on the page, and what hands and keys do to it.

const $ = (id) => document.getElementById(id);
const RATES = [0.1, 0.25, 0.5, 1];
const KEYS = [
  ["Space, k", "play or pause"],
  ["← →", "one frame back or on; with Shift, ten"],
  ["Home, End", "first, last frame"],
  ["l", "loop"],
  ["< >", "slower, faster"],
  ["h", "distance to the first face as colours"],
  ["1 .. 9", "that face alone; again, all"],
  ["a d w s", "turn the faces"],
  ["+ − 0", "nearer, further, as at first"],
  ["t", "light or dark"],
  ["?", "this list"],
];

function start(raw) {
  const data = decode(raw);
  const panels = [...document.querySelectorAll(".panel")];
  const faces = data.sequences.map((_, index) => new Face(data, index));
  const view = new View(data.camera);
  const state = { frame: -1, time: 0, phone: -1, heat: false, alone: null, dirty: true, cost: [] };
  const clock = new Clock($("sound"), data.n_frames / data.fps, () => { state.dirty = true; showControls(); });
  const stage = new Stage($("canvas"), panels, faces, data);
  const redraw = () => { state.dirty = true; };
  const frameAt = (time) => Math.min(data.n_frames - 1, Math.floor(time * data.fps + 1e-3));
  const goTo = (frame) => clock.seek(Math.max(0, Math.min(frame, data.n_frames - 1)) / data.fps);
  const phones = [...document.querySelectorAll("#phones span")];
  const cursors = [...document.querySelectorAll(".cursor")];
  const outputs = [...document.querySelectorAll(".plot")].flatMap((plot, which) =>
    [...plot.querySelectorAll("output")].map((output) => [output, data.values[which][output.dataset.series]]));
  const say = (text) => { $("said").textContent = text; };

  function tick() {
    clock.check();
    state.time = clock.time();
    const frame = frameAt(state.time);
    if (frame !== state.frame || state.dirty) show(frame);
    requestAnimationFrame(tick);
  }

  function show(frame) {
    const begun = performance.now();
    if (frame !== state.frame || (state.heat && state.dirty)) {
      const seen = faces.filter((_, i) => state.alone === null || i === state.alone || (i === 0 && state.heat));
      seen.forEach((face) => face.show(frame));
      if (state.heat) seen.forEach((face) => face.compare(faces[0]));
      stage.upload();
    }
    stage.draw(view, state.heat);
    Object.assign(state, { frame, dirty: false });
    showTime();
    state.cost = [...state.cost.slice(-299), performance.now() - begun];
  }

  function phoneAt(time) {
    return data.phones.findIndex(([, from, to]) => from <= time && time < to);
  }

  function showTime() {
    const { frame } = state, time = clock.time(), phone = phoneAt(time);
    const spoken = phone < 0 ? "" : `, phone ${data.phones[phone][0]}`;
    $("scrub").value = frame;
    $("scrub").setAttribute("aria-valuetext",
      `${time.toFixed(2)} of ${clock.duration.toFixed(2)} seconds, frame ${frame + 1} of ${data.n_frames}${spoken}`);
    $("time").textContent = `${time.toFixed(2)} / ${clock.duration.toFixed(2)} s`;
    $("frame").textContent = `frame ${frame + 1} / ${data.n_frames}`;
    for (const cursor of cursors) {
      cursor.style.display = "block";
      cursor.style.left = `${100 * (data.n_frames > 1 ? frame / (data.n_frames - 1) : 0)}%`;
    }
    for (const [output, values] of outputs) {
      const value = values[frame];
      output.textContent = value === null || value === undefined ? "–" : value.toFixed(2);
    }
    if (phone !== state.phone) {
      if (state.phone >= 0) phones[state.phone].classList.remove("now");
      if (phone >= 0) phones[phone].classList.add("now");
      state.phone = phone;
    }
    panels.forEach((panel, i) => panel.classList.toggle("over", frame >= data.sequences[i].frames));
  }

  function showControls() {
    $("play").setAttribute("aria-label", clock.playing ? "pause" : "play");
    $("play").dataset.on = clock.playing;
    $("loop").setAttribute("aria-pressed", clock.loop);
    $("rate").value = clock.rate;
    $("heat").setAttribute("aria-pressed", state.heat);
    $("scale").hidden = !state.heat;
    panels.forEach((panel, i) => { panel.hidden = state.alone !== null && state.alone !== i; });
    $("panels").style.setProperty("--count", state.alone === null ? panels.length : 1);
  }

  const actions = {
    play: () => (clock.playing ? clock.pause() : clock.play()),
    step: (by) => { clock.pause(); goTo(frameAt(clock.time()) + by); },
    loop: () => { clock.loop = !clock.loop; say(clock.loop ? "loops" : "stops at the end"); showControls(); },
    rate: (rate) => { clock.setRate(rate); say(`speed ${rate}`); },
    heat: () => {
      if (faces.length < 2) return;
      state.heat = !state.heat;
      state.frame = -1;
      say(state.heat ? `colours show the distance to ${data.sequences[0].name}` : "natural colours");
      showControls();
    },
    alone: (index) => {
      if (index >= faces.length) return;
      state.alone = state.alone === index ? null : index;
      state.frame = -1;
      say(state.alone === null ? "all faces" : `${data.sequences[index].name} alone`);
      showControls();
    },
    theme: () => {
      const root = document.documentElement.style;
      const dark = root.colorScheme ? root.colorScheme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
      root.colorScheme = dark ? "light" : "dark";
      say(root.colorScheme);
    },
    help: () => ($("help").open ? $("help").close() : $("help").showModal()),
    home: () => { view.reset(); redraw(); },
  };

  for (const panel of panels) orbit(panel, view, redraw);
  for (const id of ["play", "loop", "heat", "theme", "home"]) $(id).addEventListener("click", actions[id]);
  $("keys").addEventListener("click", actions.help);
  $("back").addEventListener("click", () => actions.step(-1));
  $("on").addEventListener("click", () => actions.step(1));
  $("rate").addEventListener("change", () => actions.rate(Number($("rate").value)));
  $("scrub").addEventListener("input", () => goTo(Number($("scrub").value)));
  for (const area of document.querySelectorAll(".area, #phones")) {
    const seek = (event) => {
      const box = area.getBoundingClientRect();
      goTo(Math.round((event.clientX - box.left) / box.width * (data.n_frames - 1)));
    };
    area.addEventListener("pointerdown", (event) => { area.setPointerCapture(event.pointerId); seek(event); });
    area.addEventListener("pointermove", (event) => { if (event.buttons === 1) seek(event); });
  }

  document.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.metaKey || event.altKey) return;
    const { key } = event, many = event.shiftKey ? 10 : 1;
    const next = RATES.indexOf(clock.rate) + (key === ">" ? 1 : -1);
    const done = {
      " ": actions.play, k: actions.play, l: actions.loop, h: actions.heat, t: actions.theme, "?": actions.help,
      ArrowLeft: () => actions.step(-many), ArrowRight: () => actions.step(many),
      Home: () => goTo(0), End: () => goTo(data.n_frames - 1),
      "<": () => actions.rate(RATES[Math.max(next, 0)]), ">": () => actions.rate(RATES[Math.min(next, RATES.length - 1)]),
      a: () => view.turn(-5, 0), d: () => view.turn(5, 0), w: () => view.turn(0, 5), s: () => view.turn(0, -5),
      "+": () => view.approach(1.15), "=": () => view.approach(1.15), "-": () => view.approach(1 / 1.15),
      "0": actions.home,
    }[key] || (/^[1-9]$/.test(key) ? () => actions.alone(Number(key) - 1) : null);
    if (done === null) return;
    if (key === " " && event.target.closest("button, select, summary, a") !== null) return; // Space presses a button
    if (event.target.id === "rate" && key.startsWith("Arrow")) return;
    event.preventDefault();
    done();
    redraw();
  });

  $("key_list").append(...KEYS.map(([keys, meaning]) => {
    const row = document.createElement("tr");
    row.append(...[keys, meaning].map((text, i) => {
      const cell = document.createElement(i ? "td" : "th");
      cell.textContent = text;
      return cell;
    }));
    return row;
  }));
  const css = ([r, g, b]) => `rgb(${[r, g, b].map((x) => Math.round(255 * x))})`;
  $("ramp").style.background = `linear-gradient(to right, ${HEAT.map(css)})`;
  $("scrub").max = data.n_frames - 1;
  if (faces.length < 2) $("heat").hidden = true;
  clock.loop = !matchMedia("(prefers-reduced-motion: reduce)").matches;
  new ResizeObserver(redraw).observe($("canvas"));
  showControls();
  tick();
  return { data, faces, view, clock, state, stage, frameAt };
}

try {
  window.viewer = start(JSON.parse($("data").textContent));
} catch (error) {
  $("failed").hidden = false;
  $("failed").textContent = `The faces cannot be drawn: ${error.message}.`;
  throw error;
}
