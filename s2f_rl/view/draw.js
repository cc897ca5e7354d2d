// One WebGL2 canvas behind all panels. Lights and lens are those of the films (render/shading.py, render/camera.py).

// from what is alike, as pale as clay, to what is furthest off, which is darkest
const HEAT = [[0.88, 0.87, 0.84], [0.96, 0.76, 0.45], [0.91, 0.48, 0.25], [0.74, 0.20, 0.24], [0.38, 0.07, 0.29]];

const VERTEX_SHADER = `#version 300 es
in vec3 position, normal;
in vec4 colour;
in float distance_mm;
uniform mat3 turn;
uniform vec3 centre;
uniform float eye, zoom, dot_size;
out vec3 v_normal;
out vec4 v_colour;
out float v_distance;
void main() {
  vec3 view = turn * (position - centre);
  float depth = eye - view.z, near = eye * 0.05, far = eye * 4.0;
  gl_Position = vec4(zoom * eye * view.xy, ((far + near) * depth - 2.0 * far * near) / (far - near), depth);
  gl_PointSize = max(1.5, dot_size * eye / depth);
  v_normal = turn * normal;
  v_colour = colour;
  v_distance = distance_mm;
}`;

const FRAGMENT_SHADER = `#version 300 es
precision highp float;
in vec3 v_normal;
in vec4 v_colour;
in float v_distance;
uniform bool dots, heat;
uniform float heat_mm;
uniform vec3 ramp[5];
out vec4 pixel;
const vec3 key = normalize(vec3(-0.45, 0.50, 0.74)), fill = normalize(vec3(0.85, 0.05, 0.53));
const vec3 sky = vec3(0.20, 0.21, 0.23), ground = vec3(0.09, 0.08, 0.08);
void main() {
  vec3 n = normalize(v_normal);
  if (dots) {
    vec2 at = 2.0 * gl_PointCoord - 1.0;
    if (dot(at, at) > 1.0 || n.z < -0.2) discard; // the far side would shine through
  } else if (!gl_FrontFacing) { // the inside of the mouth
    pixel = vec4(43.0, 22.0, 22.0, 255.0) / 255.0;
    return;
  }
  vec3 srgb = v_colour.rgb;
  float open = 0.05 + 0.95 * v_colour.a;
  if (heat) {
    float x = clamp(v_distance / heat_mm, 0.0, 1.0) * 4.0;
    int i = int(min(x, 3.0));
    srgb = mix(ramp[i], ramp[i + 1], x - float(i));
    open = max(open, 0.4); // the inside of the mouth stays the inside
  }
  vec3 albedo = pow(srgb, vec3(2.2)) * open;
  float up = 0.5 + 0.5 * n.y;
  vec3 around = mix(ground, sky, up);
  vec3 light = max(dot(n, key), 0.0) * vec3(1.02, 0.97, 0.90) + max(dot(n, fill), 0.0) * vec3(0.16, 0.19, 0.24) + around;
  if (heat) light = mix(vec3(0.9), light, 0.5); // a colour must be read, not guessed from its shadow
  float gloss = heat ? 0.0 : 0.05 * pow(max(dot(n, normalize(key + vec3(0, 0, 1))), 0.0), 24.0);
  vec3 rim = 0.10 * pow(clamp(1.0 - n.z, 0.0, 1.0), 3.0) * sky;
  pixel = vec4(pow(clamp(albedo * light + gloss + rim, 0.0, 1.0), vec3(1.0 / 2.2)), 1.0);
}`;

class Stage {
  constructor(canvas, panels, faces, data) {
    Object.assign(this, { canvas, panels, faces, data });
    const gl = canvas.getContext("webgl2", { antialias: true, alpha: true });
    if (gl === null) throw new Error("this browser offers no WebGL2");
    this.gl = gl;
    this.program = linked(gl);
    gl.useProgram(this.program);
    const name = (uniform) => gl.getUniformLocation(this.program, uniform);
    this.at = Object.fromEntries(["turn", "centre", "eye", "zoom", "dot_size", "dots", "heat", "heat_mm"]
      .map((uniform) => [uniform, name(uniform)]));
    gl.uniform3fv(name("ramp"), HEAT.flat());
    gl.uniform3fv(this.at.centre, data.camera.centre);
    gl.uniform1i(this.at.dots, data.faces === null);
    gl.uniform1f(this.at.heat_mm, data.heat_mm);
    gl.enable(gl.DEPTH_TEST);
    this.colours = filled(gl, data.colours);
    if (data.faces !== null) {
      this.triangles = gl.createBuffer();
      gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.triangles);
      gl.bufferData(gl.ELEMENT_ARRAY_BUFFER, data.faces, gl.STATIC_DRAW);
    }
    this.meshes = faces.map((face) => this.mesh(face));
  }

  mesh(face) {
    const gl = this.gl;
    const array = gl.createVertexArray();
    gl.bindVertexArray(array);
    const bound = (name, buffer, size, type, normalized) => {
      const index = gl.getAttribLocation(this.program, name);
      gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
      gl.enableVertexAttribArray(index);
      gl.vertexAttribPointer(index, size, type, normalized, 0, 0);
      return buffer;
    };
    const made = {
      array,
      positions: bound("position", filled(gl, face.positions), 3, gl.FLOAT, false),
      normals: bound("normal", filled(gl, face.normals), 3, gl.FLOAT, false),
      distances: bound("distance_mm", filled(gl, face.distances), 1, gl.FLOAT, false),
    };
    bound("colour", this.colours, 4, gl.UNSIGNED_BYTE, true);
    if (this.triangles) gl.bindBuffer(gl.ELEMENT_ARRAY_BUFFER, this.triangles);
    gl.bindVertexArray(null);
    return made;
  }

  // Sends what the faces have computed to the graphics card.
  upload() {
    const gl = this.gl;
    this.faces.forEach((face, i) => {
      const mesh = this.meshes[i];
      for (const part of ["positions", "normals", "distances"]) {
        gl.bindBuffer(gl.ARRAY_BUFFER, mesh[part]);
        gl.bufferSubData(gl.ARRAY_BUFFER, 0, face[part]);
      }
    });
  }

  draw(view, heat) {
    const { gl, canvas, data } = this;
    const ratio = Math.min(window.devicePixelRatio || 1, 2);
    const whole = canvas.getBoundingClientRect();
    const width = Math.round(whole.width * ratio), height = Math.round(whole.height * ratio);
    if (canvas.width !== width || canvas.height !== height) Object.assign(canvas, { width, height });
    gl.disable(gl.SCISSOR_TEST);
    gl.clearColor(0, 0, 0, 0);
    gl.clear(gl.COLOR_BUFFER_BIT | gl.DEPTH_BUFFER_BIT);
    gl.uniformMatrix3fv(this.at.turn, true, view.rotation());
    gl.uniform1f(this.at.eye, data.camera.distance);
    this.panels.forEach((panel, i) => {
      const box = panel.getBoundingClientRect();
      if (box.width === 0) return;
      const w = box.width * ratio, h = box.height * ratio, side = Math.min(w, h);
      // the picture is a square in the middle of the panel, what is left and right of it is shown as well
      const x = (box.left - whole.left) * ratio + (w - side) / 2 + view.shift[0] * ratio;
      const y = height - (box.bottom - whole.top) * ratio + (h - side) / 2 - view.shift[1] * ratio;
      gl.enable(gl.SCISSOR_TEST);
      gl.scissor((box.left - whole.left) * ratio, height - (box.bottom - whole.top) * ratio, w, h);
      // the square may be larger than a card's largest viewport only far beyond any screen
      gl.viewport(x - side, y - side, 3 * side, 3 * side);
      const zoom = view.zoom / data.camera.half_height / 3;
      gl.uniform1f(this.at.zoom, zoom);
      gl.uniform1f(this.at.dot_size, 3 * zoom * side * data.dot_radius);
      gl.uniform1i(this.at.heat, heat && i > 0);
      gl.bindVertexArray(this.meshes[i].array);
      if (data.faces === null) gl.drawArrays(gl.POINTS, 0, data.n_vertices);
      else gl.drawElements(gl.TRIANGLES, data.faces.length, gl.UNSIGNED_INT, 0);
    });
    gl.bindVertexArray(null);
  }
}

function filled(gl, values) {
  const buffer = gl.createBuffer();
  gl.bindBuffer(gl.ARRAY_BUFFER, buffer);
  gl.bufferData(gl.ARRAY_BUFFER, values, gl.DYNAMIC_DRAW);
  return buffer;
}

function linked(gl) {
  const program = gl.createProgram();
  for (const [type, source] of [[gl.VERTEX_SHADER, VERTEX_SHADER], [gl.FRAGMENT_SHADER, FRAGMENT_SHADER]]) {
    const shader = gl.createShader(type);
    gl.shaderSource(shader, source);
    gl.compileShader(shader);
    gl.attachShader(program, shader);
  }
  gl.linkProgram(program);
  if (!gl.getProgramParameter(program, gl.LINK_STATUS)) throw new Error(gl.getProgramInfoLog(program));
  return program;
}
