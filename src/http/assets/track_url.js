"use strict";
(() => {
  const at = (id) => document.getElementById(id);
  const base = location.pathname.replace(/\/pub\/.*$/, "");
  const campaign = [
    ["utm_source", "Source"], ["utm_medium", "Medium"], ["utm_campaign", "Campaign"],
    ["utm_term", "Term"], ["utm_content", "Content"],
  ];
  const more = [
    ["ptyp", "Page type"], ["etyp", "Event type"], ["aff", "Affiliate"], ["sink", "Sink"],
    ["score", "Score"], ["xid", "Experiment"], ["ver", "Version"], ["ref", "Referral"],
    ["uname", "User name"],
  ];
  const inputs = [];
  const add = (place, fields) => {
    for (const [name, text] of fields) {
      const label = document.createElement("label");
      const input = document.createElement("input");
      label.append(text + " ", input);
      input.name = name;
      input.autocomplete = "off";
      at(place).append(label);
      inputs.push(input);
    }
  };
  add("campaign", campaign);
  add("more", more);

  // Campaign words are compared by people: one spelling for each.
  const word = (text) => text.trim().toLowerCase().replace(/\s+/g, "_").replace(/[^a-z0-9_.-]/g, "");

  const build = () => {
    const url = at("url").value.trim();
    const kind = at("kind").value;
    const pairs = inputs.map((input) => [input.name, word(input.value)]).filter(([, v]) => v);
    if (kind === "own") {
      try {
        const own = new URL(url);
        for (const [name, value] of pairs) own.searchParams.set(name, value);
        return own.href;
      } catch { return ""; }
    }
    if (kind !== "img" && !url) return "";
    const query = new URLSearchParams(pairs);
    if (url) query.set("url", url);
    return `${location.protocol}//${at("tracker").value.trim()}${base}/${kind}/?${query}`;
  };
  const show = () => { at("result").value = build(); at("status").textContent = ""; };

  at("tracker").value = location.host;
  const given = new URLSearchParams(location.search);
  if (given.get("url")) at("url").value = given.get("url");
  at("form").addEventListener("input", show);
  at("form").addEventListener("submit", (event) => event.preventDefault());
  at("copy").addEventListener("click", async () => {
    const status = at("status");
    if (!at("result").value) { status.textContent = "Enter a destination first."; at("url").focus(); return; }
    try {
      await navigator.clipboard.writeText(at("result").value);
      status.textContent = "Copied.";
    } catch {
      at("result").select();
      status.textContent = "Selected: copy it with your keyboard.";
    }
  });
  show();
})();
