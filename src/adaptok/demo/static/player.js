// Draws the panels of a strip on one canvas each, and moves the cursor of the chart with the time of the video.
class AdaptokPlayer extends HTMLElement {
  connectedCallback() {
    if (this.video) return;
    const find = (selector) => this.querySelector(selector);
    this.video = find("video");
    this.canvases = [...this.querySelectorAll("canvas")];
    this.button = find(".controls button");
    this.position = find(".controls input");
    this.clock = find(".clock");
    this.cursor = find(".cursor");
    this.readings = [...this.querySelectorAll(".reading")].map((element) => ({
      lengths: JSON.parse(element.dataset.lengths),
      output: element.querySelector("output"),
    }));
    this.video.muted = true; // the attribute alone does not mute a video that a script inserts
    this.button.addEventListener("click", () => (this.video.paused ? this.video.play() : this.video.pause()));
    this.position.addEventListener("input", () => {
      this.video.pause();
      this.video.currentTime = this.position.value * (this.video.duration || 0);
    });
    for (const event of ["play", "pause"]) this.video.addEventListener(event, () => this.label());
    for (const event of ["loadeddata", "seeked"]) this.video.addEventListener(event, () => this.draw());
    this.video.addEventListener("error", () => {
      const note = document.createElement("p");
      note.className = "note";
      note.textContent = "This browser cannot play the video (H.264). Download it instead.";
      find(".controls").replaceWith(note);
    });
    if (matchMedia("(prefers-reduced-motion: reduce)").matches) this.video.removeAttribute("autoplay");
    else this.video.play().catch(() => this.label());
    this.loop();
    if (innerWidth < 640) this.scrollIntoView({ behavior: "smooth" }); // the settings stand above the result there
  }

  label() {
    this.button.classList.toggle("paused", this.video.paused);
    this.button.setAttribute("aria-label", this.video.paused ? "Play" : "Pause");
  }

  loop() {
    if (!this.isConnected) return;
    if (!this.video.paused) this.draw();
    requestAnimationFrame(() => this.loop());
  }

  draw() {
    const { video } = this;
    if (video.readyState < 2) return;
    this.canvases.forEach((canvas, index) => {
      const { width, height } = canvas;
      canvas.getContext("2d").drawImage(video, index * width, 0, width, height, 0, 0, width, height);
    });
    const fraction = video.duration ? video.currentTime / video.duration : 0;
    if (document.activeElement !== this.position || !video.paused) this.position.value = fraction;
    this.clock.textContent = `${video.currentTime.toFixed(1)} / ${(video.duration || 0).toFixed(1)} s`;
    this.cursor.style.left = `${100 * fraction}%`;
    const blocks = Number(this.dataset.blocks);
    const block = Math.min(blocks - 1, Math.floor(fraction * blocks));
    for (const { lengths, output } of this.readings) output.textContent = lengths[block];
  }
}

if (!customElements.get("adaptok-player")) customElements.define("adaptok-player", AdaptokPlayer);
