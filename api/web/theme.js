// Runs before the page is painted, so that a chosen theme never flashes.
(function () {
  let chosen = null;
  try {
    chosen = localStorage.getItem("comfyd.theme");
  } catch {
    // The browser keeps nothing: the system's theme it is.
  }
  if (chosen === "light" || chosen === "dark") document.documentElement.dataset.theme = chosen;
})();
