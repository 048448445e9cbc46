// Light or dark: as the system says, until somebody chooses, which is remembered where the browser lets a page do so.

const NAME = "kubesae-theme";

export function startTheme(changed) {
  const dark = matchMedia("(prefers-color-scheme: dark)");
  const apply = () => {
    document.documentElement.dataset.theme = remembered() ?? (dark.matches ? "dark" : "light");
    changed();
  };
  dark.addEventListener("change", apply);
  apply();
  return () => {
    remember(document.documentElement.dataset.theme === "dark" ? "light" : "dark");
    apply();
  };
}

let chosen = null;

function remembered() {
  try {
    return localStorage.getItem(NAME) ?? chosen;
  } catch {
    return chosen;
  }
}

function remember(theme) {
  chosen = theme;
  try {
    localStorage.setItem(NAME, theme);
  } catch {
    // a file, or a browser that keeps nothing
  }
}
