"use strict";
// Filters for the examples; without this script all of them are shown.
(function () {
  const examples = Array.from(document.querySelectorAll("article.example"));
  const place = document.getElementById("filters");
  if (!place || examples.length < 2) return;
  const chosen = {};
  const count = document.createElement("p");
  count.setAttribute("role", "status");
  function show() {
    let shown = 0;
    for (const example of examples) {
      const fits = Object.keys(chosen).every((key) => !chosen[key] || example.dataset[key] === chosen[key]);
      example.hidden = !fits;
      shown += fits ? 1 : 0;
    }
    count.textContent = shown + " of " + examples.length + " examples shown";
  }
  for (const key of ["origin", "outcome", "reason"]) {
    const label = document.createElement("label");
    label.textContent = key + " ";
    const select = document.createElement("select");
    select.append(new Option("all", ""));
    for (const value of Array.from(new Set(examples.map((e) => e.dataset[key]))).sort()) {
      select.append(new Option(value, value));
    }
    select.addEventListener("change", function () {
      chosen[key] = select.value;
      show();
    });
    label.append(select);
    place.append(label);
  }
  place.append(count);
  place.hidden = false;
  show();
})();
