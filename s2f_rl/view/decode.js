// What the page holds (base64 of little-endian arrays) as typed arrays.

function bytesOf(text) {
  const binary = atob(text);
  const bytes = new Uint8Array(binary.length);
  for (let i = 0; i < binary.length; i++) bytes[i] = binary.charCodeAt(i);
  return bytes;
}

function decode(data) {
  const floats = (text) => new Float32Array(bytesOf(text).buffer);
  const shorts = (text) => new Int16Array(bytesOf(text).buffer);
  const scale = floats(data.scale);
  const size = 3 * data.n_vertices;
  const stored = shorts(data.basis);
  const basis = new Float32Array(stored.length); // metres per unit of a coefficient
  for (let k = 0; k < scale.length; k++) {
    for (let i = k * size; i < (k + 1) * size; i++) basis[i] = stored[i] * scale[k];
  }
  return {
    ...data,
    size,
    n_components: scale.length,
    mean: floats(data.mean),
    basis,
    coefficients: shorts(data.coefficients),
    colours: bytesOf(data.colours), // [V, 4]: sRGB, and the share of the sky that a vertex sees
    faces: data.faces === null ? null : new Uint32Array(bytesOf(data.faces).buffer),
    normals: data.normals === null ? null : new Float32Array(bytesOf(data.normals).buffer),
  };
}
