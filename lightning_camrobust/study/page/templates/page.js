(function () {
  var root = document.documentElement, toggle = document.getElementById("theme");
  function dark() {
    return root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  }
  function show() { toggle.textContent = dark() ? "Light page" : "Dark page"; }
  toggle.hidden = false;
  toggle.addEventListener("click", function () { root.dataset.theme = dark() ? "light" : "dark"; show(); });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", show);
  show();
  document.querySelectorAll("button[data-copy]").forEach(function (button) {
    button.hidden = false;
    button.addEventListener("click", function () {
      var source = document.getElementById(button.dataset.copy), range = document.createRange();
      range.selectNodeContents(source);
      getSelection().removeAllRanges();
      getSelection().addRange(range);
      button.textContent = document.execCommand("copy") ? "Copied" : "Selected";
      setTimeout(function () { button.textContent = "Copy"; }, 2000);
    });
  });
  addEventListener("beforeprint", function () {
    document.querySelectorAll("details:not(.skip-print)").forEach(function (each) { each.open = true; });
  });
})();
