// The view that all panels share, and what turns it: mouse, pen, fingers, wheel.

class View {
  constructor(camera) {
    this.home = { yaw: camera.yaw, pitch: camera.pitch };
    this.reset();
  }

  reset() {
    Object.assign(this, this.home, { zoom: 1, shift: [0, 0] });
  }

  turn(yaw, pitch) {
    this.yaw += yaw;
    this.pitch = Math.max(-89, Math.min(89, this.pitch + pitch));
  }

  // Nearer by a factor; what lies `from` [x, y] pixels off the middle of a panel stays there.
  approach(factor, from = [0, 0]) {
    const zoom = Math.max(0.3, Math.min(12, this.zoom * factor));
    const real = zoom / this.zoom;
    this.shift = this.shift.map((s, i) => from[i] + (s - from[i]) * real);
    this.zoom = zoom;
  }

  move(dx, dy) {
    this.shift = [this.shift[0] + dx, this.shift[1] + dy];
  }

  // World to view directions by rows, as Camera.rotation.
  rotation() {
    const y = this.yaw * Math.PI / 180, p = this.pitch * Math.PI / 180;
    const [cy, sy, cp, sp] = [Math.cos(y), Math.sin(y), Math.cos(p), Math.sin(p)];
    return [cy, 0, -sy, -sp * sy, cp, -sp * cy, cp * sy, sp, cp * cy];
  }
}

function orbit(panel, view, changed) {
  const held = new Map(); // pointers on the panel -> where they are
  const middle = () => {
    const points = [...held.values()];
    return [0, 1].map((i) => points.reduce((sum, point) => sum + point[i], 0) / points.length);
  };
  const reach = () => {
    const [a, b] = [...held.values()];
    return Math.hypot(a[0] - b[0], a[1] - b[1]);
  };
  const from = (x, y) => {
    const box = panel.getBoundingClientRect();
    return [x - box.left - box.width / 2, y - box.top - box.height / 2];
  };
  panel.addEventListener("pointerdown", (event) => {
    if (event.target.closest("button") !== null) return;
    panel.setPointerCapture(event.pointerId);
    held.set(event.pointerId, [event.clientX, event.clientY]);
  });
  panel.addEventListener("pointermove", (event) => {
    if (!held.has(event.pointerId)) return;
    const before = middle(), apart = held.size === 2 ? reach() : 0;
    held.set(event.pointerId, [event.clientX, event.clientY]);
    const after = middle(), dx = after[0] - before[0], dy = after[1] - before[1];
    if (held.size === 1 && event.buttons === 1 && !event.shiftKey) view.turn(-0.4 * dx, 0.4 * dy);
    else view.move(dx, dy);
    if (held.size === 2 && apart > 0) view.approach(reach() / apart, from(...after)); // what is held stays held
    changed();
  });
  for (const end of ["pointerup", "pointercancel", "lostpointercapture"]) {
    panel.addEventListener(end, (event) => held.delete(event.pointerId));
  }
  panel.addEventListener("contextmenu", (event) => event.preventDefault()); // the right button moves
  panel.addEventListener("dblclick", () => { view.reset(); changed(); });
  panel.addEventListener("wheel", (event) => {
    event.preventDefault();
    view.approach(Math.exp(-0.0015 * event.deltaY), from(event.clientX, event.clientY));
    changed();
  }, { passive: false });
}
