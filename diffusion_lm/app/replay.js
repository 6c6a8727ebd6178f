() => {
  // Moves the slider of the steps from the first to the last; another press starts anew.
  const slider = document.querySelector("#step input[type=range]");
  const last = Number(slider.max);
  const pause = Math.max(40, Math.min(300, 6000 / last));
  let step = 1;
  clearInterval(window.replaying);
  const show = () => {
    slider.value = step;
    slider.dispatchEvent(new Event("input", { bubbles: true }));
    if (step++ >= last) clearInterval(window.replaying);
  };
  show();
  window.replaying = setInterval(show, pause);
}
