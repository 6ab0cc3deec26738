"use strict";
// Plots in closed details have no width to be drawn at: each is drawn once it is in the open.
const plots = [...document.querySelectorAll(".plot")];
const inTheOpen = (div) => div.closest("details:not([open])") === null;

function draw(div) {
  if (div.dataset.drawn || !inTheOpen(div)) return;
  div.dataset.drawn = "yes";
  const figure = JSON.parse(div.nextElementSibling.textContent);
  Plotly.newPlot(div, figure.data, figure.layout, { displayModeBar: false, displaylogo: false, responsive: true });
}

function reveal() {
  const target = document.getElementById(location.hash.slice(1));
  for (let box = target?.closest("details"); box; box = box.parentElement.closest("details")) box.open = true;
}

// Paper can't be clicked: open everything but the long tables, and draw at the width of a page.
let shut = [];
function beforePrint() {
  shut = [...document.querySelectorAll("details:not([open]):not(.values)")];
  shut.forEach((box) => { box.open = true; });
  plots.forEach(draw);
  plots.forEach((div) => inTheOpen(div) && Plotly.relayout(div, { width: 660, autosize: false }));
}
function afterPrint() {
  plots.forEach((div) => div.dataset.drawn && Plotly.relayout(div, { width: null, autosize: true }));
  shut.forEach((box) => { box.open = false; });
}

document.addEventListener("toggle", () => plots.forEach(draw), true);
window.addEventListener("hashchange", reveal);
window.addEventListener("beforeprint", beforePrint);
window.addEventListener("afterprint", afterPrint);
reveal();
plots.forEach(draw);
