// A list of any length: cards exist only near what is seen, the rest are empty boxes as high as theirs were.
const CHUNK = 24; // divisible by every number of columns, so that no row is cut

class List {
  /** `make(item, index, total)` gives an item's element, `drop(item)` is told when that is gone. */
  constructor(root, make, drop) {
    Object.assign(this, {root, make, drop, items: [], heights: [], width: 0});
    this.watch = new IntersectionObserver((entries) => {
      for (const {target, isIntersecting} of entries) {
        if (isIntersecting) this.fill(target);
        else this.empty(target);
      }
    }, {rootMargin: "1200px 0px"});
    new ResizeObserver(() => {
      if (this.width === root.clientWidth) return;
      this.width = root.clientWidth;
      this.forget();
    }).observe(root);
  }

  show(items) {
    for (const box of this.root.children) this.empty(box);
    this.watch.disconnect();
    this.items = items;
    this.heights = [];
    const boxes = [];
    for (let start = 0; start < items.length; start += CHUNK) {
      const box = el("div", {class: "chunk"});
      box.start = start;
      boxes.push(box);
    }
    this.root.replaceChildren(...boxes);
    this.forget();
    for (const box of boxes) this.watch.observe(box);
  }

  /** Guess anew how high the boxes are that hold nothing. */
  forget() {
    this.heights = [];
    for (const box of this.root.children) {
      if (!box.filled) box.style.minHeight = `${this.guess(box)}px`;
    }
  }

  guess(box) {
    const count = Math.min(CHUNK, this.items.length - box.start);
    const columns = Math.max(1, getComputedStyle(box).gridTemplateColumns.split(" ").length);
    const known = this.heights.filter((height) => height > 0);
    const row = known.length ? known.reduce((a, b) => a + b) / known.length
      : this.root.clientWidth / columns / 4 + 190;
    return Math.ceil(count / columns) * row;
  }

  fill(box) {
    if (box.filled) return;
    box.filled = true;
    const items = this.items.slice(box.start, box.start + CHUNK);
    box.append(...items.map((item, index) => this.make(item, box.start + index, this.items.length)));
    box.style.minHeight = "";
    const columns = Math.max(1, getComputedStyle(box).gridTemplateColumns.split(" ").length);
    this.heights.push(box.offsetHeight / Math.ceil(items.length / columns));
    if (this.heights.length === 1) {
      for (const other of this.root.children) {
        if (!other.filled) other.style.minHeight = `${this.guess(other)}px`;
      }
    }
  }

  empty(box) {
    // What has the focus stays, or the keyboard would be lost.
    if (!box.filled || box.contains(document.activeElement)) return;
    box.style.minHeight = `${box.offsetHeight}px`;
    box.filled = false;
    box.replaceChildren();
    this.items.slice(box.start, box.start + CHUNK).forEach(this.drop);
  }

  /** Bring the item `index` to the screen and return its element. */
  reveal(index) {
    const box = this.root.children[Math.floor(index / CHUNK)];
    if (!box) return null;
    this.fill(box);
    return box.children[index - box.start];
  }
}
