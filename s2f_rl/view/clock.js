// Time: the sound's own while it plays, else the page's. While nothing plays it stands where it was put.

class Clock {
  constructor(sound, duration, changed) {
    Object.assign(this, { sound, duration, changed, rate: 1, loop: false, playing: false });
    this.stood = 0; // seconds, where it stands
    this.since = 0; // when the page's own clock was started, ms
    if (sound !== null) {
      sound.addEventListener("ended", () => this.end());
      sound.addEventListener("pause", () => { // by a headset's button; our own may be told when it plays again
        if (this.playing && sound.paused && !sound.ended) this.pause();
      });
      sound.addEventListener("error", () => this.lose());
      if (sound.error !== null) this.lose();
    }
  }

  // The page goes on without a sound that cannot be played.
  lose() {
    const playing = this.playing;
    this.stood = this.time();
    this.sound = null;
    this.playing = false;
    document.getElementById("silent").hidden = false;
    if (playing) this.play();
  }

  time() {
    if (!this.playing) return this.stood;
    const now = this.sound !== null ? this.sound.currentTime
      : this.stood + this.rate * (performance.now() - this.since) / 1000;
    return Math.min(now, this.duration);
  }

  play() {
    if (this.playing) return;
    if (this.stood >= this.duration - 1e-3) this.stood = 0;
    this.playing = true;
    this.since = performance.now();
    if (this.sound !== null) {
      // to where it is already it would go with a click
      if (Math.abs(this.sound.currentTime - this.stood) > 1e-3) this.sound.currentTime = this.stood;
      this.sound.playbackRate = this.rate;
      this.sound.play().catch(() => { if (this.sound !== null && this.sound.paused) this.pause(); });
    }
    this.changed();
  }

  pause() {
    if (!this.playing) return;
    this.stood = this.time();
    this.playing = false;
    if (this.sound !== null) this.sound.pause();
    this.changed();
  }

  seek(time) {
    this.stood = Math.max(0, Math.min(time, this.duration));
    this.since = performance.now();
    if (this.playing && this.sound !== null) this.sound.currentTime = this.stood;
    this.changed();
  }

  setRate(rate) {
    this.stood = this.time();
    this.since = performance.now();
    this.rate = rate;
    if (this.sound !== null) this.sound.playbackRate = rate;
    this.changed();
  }

  // Called in every frame, and when the sound is over.
  check() {
    if (this.playing && this.time() >= this.duration - 1e-3) this.end();
  }

  end() {
    if (!this.playing) return;
    this.playing = false;
    if (this.sound !== null) this.sound.pause();
    this.stood = this.loop ? 0 : this.duration;
    if (this.loop) this.play();
    else this.changed();
  }
}
