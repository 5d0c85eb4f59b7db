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

  /** Guess anew how high the boxes are that hold nothing, as the screen is now. */
  forget() {
    const filled = [...this.root.children].filter((box) => box.filled);
    this.heights = filled.map((box) => box.offsetHeight / Math.ceil(this.count(box) / this.columns(box)));
    this.guess();
  }

  guess() {
    const boxes = [...this.root.children];
    if (!boxes.length) return;
    // Asked once for all: asking between two changes would lay the page out anew each time.
    const columns = this.columns(boxes[0]);
    const row = this.heights.length ? this.heights.reduce((a, b) => a + b) / this.heights.length
      : this.root.clientWidth / columns / 4 + 190;
    for (const box of boxes) {
      if (!box.filled) box.style.minHeight = `${Math.ceil(this.count(box) / columns) * row}px`;
    }
  }

  count(box) {
    return Math.min(CHUNK, this.items.length - box.start);
  }

  columns(box) {
    return Math.max(1, getComputedStyle(box).gridTemplateColumns.split(" ").length);
  }

  fill(box) {
    if (box.filled) return;
    box.filled = true;
    const items = this.items.slice(box.start, box.start + CHUNK);
    box.append(...items.map((item, index) => this.make(item, box.start + index, this.items.length)));
    box.style.minHeight = "";
    this.heights.push(box.offsetHeight / Math.ceil(this.count(box) / this.columns(box)));
    if (this.heights.length === 1) this.guess(); // the first to be measured: the others are like it
  }

  empty(box) {
    // What has the focus stays, or the keyboard would be lost.
    if (!box.filled || box.contains(document.activeElement)) return;
    box.style.minHeight = `${box.offsetHeight}px`;
    box.filled = false;
    box.replaceChildren();
    this.items.slice(box.start, box.start + CHUNK).forEach(this.drop);
  }

  /** j and k, page down and page up: from item to item. Whether `event` was one of these. */
  walk(event) {
    const step = {j: 1, k: -1, PageDown: 1, PageUp: -1}[event.key];
    const here = event.target.closest?.("[aria-posinset]");
    if (!step || (!here && event.key.length > 1) || !this.items.length) return false;
    event.preventDefault();
    const wanted = here ? Number(here.getAttribute("aria-posinset")) - 1 + step : 0;
    const index = Math.max(0, Math.min(this.items.length - 1, wanted));
    const box = this.root.children[Math.floor(index / CHUNK)];
    this.fill(box);
    const next = box.children[index - box.start];
    next.focus({preventScroll: true});
    next.scrollIntoView({block: "center"});
    return true;
  }
}
