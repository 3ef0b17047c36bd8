// What pages do beyond links and forms: tell instants in the reader's terms, follow what changes, move about a picture.
// Everything works without it, except that nothing moves by itself.
(() => {
  "use strict";
  const main = () => document.getElementById("main");

  // Instants: how long ago, or in how long; the exact one on demand.
  const units = [[86400, "day"], [3600, "hour"], [60, "minute"], [1, "second"]];
  const words = typeof Intl !== "undefined" && new Intl.RelativeTimeFormat("en", { numeric: "auto" });
  const tell = () => {
    for (const time of document.querySelectorAll("time[datetime]")) {
      const at = Date.parse(time.dateTime);
      if (Number.isNaN(at)) continue;
      const seconds = Math.round((at - Date.now()) / 1000);
      time.title = new Date(at).toLocaleString() + " (" + time.dateTime + ")";
      if (!words || Math.abs(seconds) > 7 * 86400) continue;
      const [size, unit] = units.find(([size]) => Math.abs(seconds) >= size) || units[3];
      time.textContent = words.format(Math.trunc(seconds / size), unit);
    }
  };

  // What changes is loaded again, unless somebody is about to act: then it is offered.
  let stream = null;
  let watched = "";
  const busy = () => main().querySelector("details.deed[open], details.child[open]") || main().querySelector("input:focus, select:focus, textarea:focus");
  const load = () => htmx.ajax("GET", location.pathname + location.search, { target: "#main", select: "#main", swap: "outerHTML" });
  const offer = () => {
    if (main().querySelector(".stale")) return;
    const note = document.createElement("p");
    note.className = "stale";
    note.setAttribute("role", "status");
    const button = document.createElement("button");
    button.textContent = "Show what has changed";
    button.addEventListener("click", load);
    note.append(button);
    main().prepend(note);
  };
  const watch = () => {
    const of = main().dataset.live || "";
    const wanted = of && of + "\n" + main().dataset.mark;
    if (stream && (!of || watched !== of)) { stream.close(); stream = null; }
    watched = of;
    if (!wanted || stream) return;
    stream = new EventSource("/console/live?of=" + encodeURIComponent(of) + "&mark=" + encodeURIComponent(main().dataset.mark || ""));
    stream.addEventListener("changed", () => (busy() ? offer() : load()));
  };

  // Why a form was not done stands beside it.
  document.addEventListener("htmx:beforeSwap", (event) => {
    if (event.detail.elt.closest(".deed") && event.detail.xhr.status >= 400) event.detail.shouldSwap = true;
  });

  // Pictures: zoom, find, go to what moves.
  const open = new Map();
  const picture = (figure) => {
    const svg = figure.querySelector("svg.graph");
    const canvas = figure.querySelector(".canvas");
    if (!svg || figure.dataset.ready) return;
    figure.dataset.ready = "1";
    const box = svg.viewBox.baseVal;
    const key = location.pathname;
    let scale = open.has(key) ? open.get(key) : Math.max(0.55, Math.min(1, (canvas.clientWidth - 10) / box.width));
    const show = () => {
      svg.setAttribute("width", String(box.width * scale));
      svg.setAttribute("height", String(box.height * scale));
      open.set(key, scale);
    };
    show();
    const zoom = (factor) => { scale = Math.max(0.1, Math.min(3, scale * factor)); show(); };
    figure.addEventListener("click", (event) => {
      const button = event.target.closest("button");
      if (!button) return;
      if (button.dataset.zoom === "in") zoom(1.25);
      if (button.dataset.zoom === "out") zoom(0.8);
      if (button.dataset.zoom === "fit") { scale = Math.min((canvas.clientWidth - 10) / box.width, (canvas.clientHeight - 10) / box.height, 1.5); show(); }
      if ("follow" in button.dataset) {
        const spot = figure.querySelector(".spot.bad, .spot.busy, .spot.back");
        if (spot) spot.scrollIntoView({ block: "nearest", inline: "center" });
      }
    });
    canvas.addEventListener("wheel", (event) => {
      if (!event.ctrlKey) return;
      event.preventDefault();
      zoom(event.deltaY < 0 ? 1.1 : 0.9);
    }, { passive: false });
    let from = null;
    canvas.addEventListener("pointerdown", (event) => {
      if (event.pointerType === "mouse" && event.button === 0 && !event.target.closest("a")) from = [event.clientX, event.clientY, canvas.scrollLeft, canvas.scrollTop];
    });
    canvas.addEventListener("pointermove", (event) => {
      if (!from) return;
      canvas.scrollLeft = from[2] - (event.clientX - from[0]);
      canvas.scrollTop = from[3] - (event.clientY - from[1]);
    });
    window.addEventListener("pointerup", () => { from = null; });
    const find = figure.querySelector("[data-find]");
    find.addEventListener("input", () => {
      const text = find.value.trim().toLowerCase();
      let first = null;
      for (const spot of svg.querySelectorAll(".spot")) {
        const is = text !== "" && spot.dataset.step.toLowerCase().includes(text);
        spot.classList.toggle("found", is);
        spot.classList.toggle("other", text !== "" && !is);
        first = first || (is ? spot : null);
      }
      if (first) first.scrollIntoView({ block: "nearest", inline: "center" });
    });
  };

  // Time travel: the page of another record, without leaving the slider.
  let waiting = 0;
  const travel = (form) => {
    const range = form.querySelector("input[type=range]");
    if (!range || form.dataset.ready) return;
    form.dataset.ready = "1";
    range.addEventListener("input", () => { form.querySelector("output").textContent = range.value; });
    range.addEventListener("change", () => {
      clearTimeout(waiting);
      const last = range.value === range.max;
      const place = form.getAttribute("action") + (last ? "" : "?as_of=" + range.value);
      htmx.ajax("GET", place, { target: "#main", select: "#main", swap: "outerHTML" }).then(() => {
        history.replaceState(null, "", place);
        ready();
        const again = document.querySelector("[data-travel] input[type=range]");
        if (again) again.focus();
      });
    });
  };

  const ready = () => {
    tell();
    document.querySelectorAll("[data-picture]").forEach(picture);
    document.querySelectorAll("[data-travel]").forEach(travel);
    watch();
  };
  document.addEventListener("DOMContentLoaded", () => {
    const here = document.querySelector(".side nav [aria-current]");
    if (here) here.scrollIntoView({ block: "nearest", inline: "center" });
    ready();
  });
  document.addEventListener("htmx:afterSettle", ready);
  setInterval(tell, 15000);
})();
