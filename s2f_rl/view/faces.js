// Vertices, normals and distances of one sequence at one frame.

class Face {
  constructor(data, index) {
    this.data = data;
    this.n_frames = data.sequences[index].frames;
    this.start = data.sequences.slice(0, index).reduce((sum, each) => sum + each.frames, 0);
    this.positions = new Float32Array(data.size);
    this.normals = data.normals || new Float32Array(data.size); // those of a cloud of points stay as they are
    this.distances = new Float32Array(data.n_vertices);
    this.frame = -1;
  }

  // Brings the positions to a frame; a sequence that has ended keeps its last. Whether anything changed.
  show(frame) {
    const wanted = Math.min(frame, this.n_frames - 1);
    if (wanted === this.frame) return false;
    this.frame = wanted;
    const { mean, basis, coefficients, n_components, size } = this.data;
    const out = this.positions;
    const first = (this.start + wanted) * n_components;
    out.set(mean);
    let k = 0;
    for (; k + 4 <= n_components; k += 4) { // four at a time: the positions are written a quarter as often
      const a = coefficients[first + k], b = coefficients[first + k + 1];
      const c = coefficients[first + k + 2], d = coefficients[first + k + 3];
      const i0 = k * size, i1 = i0 + size, i2 = i1 + size, i3 = i2 + size;
      for (let i = 0; i < size; i++) {
        out[i] += a * basis[i0 + i] + b * basis[i1 + i] + c * basis[i2 + i] + d * basis[i3 + i];
      }
    }
    for (; k < n_components; k++) {
      const a = coefficients[first + k], i0 = k * size;
      for (let i = 0; i < size; i++) out[i] += a * basis[i0 + i];
    }
    if (this.data.faces !== null) this.turn();
    return true;
  }

  // Normals: the sum of those of the triangles around a vertex, by area. The shader makes them of unit length.
  turn() {
    const { faces } = this.data, p = this.positions, n = this.normals;
    n.fill(0);
    for (let f = 0; f < faces.length; f += 3) {
      const a = 3 * faces[f], b = 3 * faces[f + 1], c = 3 * faces[f + 2];
      const ux = p[b] - p[a], uy = p[b + 1] - p[a + 1], uz = p[b + 2] - p[a + 2];
      const vx = p[c] - p[a], vy = p[c + 1] - p[a + 1], vz = p[c + 2] - p[a + 2];
      const x = uy * vz - uz * vy, y = uz * vx - ux * vz, z = ux * vy - uy * vx;
      n[a] += x; n[a + 1] += y; n[a + 2] += z;
      n[b] += x; n[b + 1] += y; n[b + 2] += z;
      n[c] += x; n[c + 1] += y; n[c + 2] += z;
    }
  }

  // Millimetres from every vertex to the same vertex of another face, as both are shown.
  compare(other) {
    const p = this.positions, q = other.positions, out = this.distances;
    for (let v = 0, i = 0; v < out.length; v++, i += 3) {
      out[v] = 1000 * Math.hypot(p[i] - q[i], p[i + 1] - q[i + 1], p[i + 2] - q[i + 2]);
    }
  }
}
