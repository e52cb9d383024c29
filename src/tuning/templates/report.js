"use strict";
(() => {
  const root = document.documentElement;
  const $ = (id) => document.getElementById(id);
  const all = (selector, from = document) => [...from.querySelectorAll(selector)];

  // --- colours -------------------------------------------------------------------------------

  const isDark = () =>
    root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
  const colour = (name) => {
    const probe = document.createElement("span");
    probe.style.color = `var(${name})`;
    document.body.append(probe);
    const found = getComputedStyle(probe).color;
    probe.remove();
    return found;
  };

  // --- charts --------------------------------------------------------------------------------

  const charts = all(".chart");
  const drawn = new Map();
  const config = () => {
    const [ink, muted, line] = ["--ink", "--muted", "--line"].map(colour);
    const axis = { labelColor: ink, titleColor: ink, domainColor: muted, tickColor: muted, gridColor: line };
    return {
      background: "transparent",
      axis,
      legend: { labelColor: ink, titleColor: ink },
      header: { labelColor: ink, titleColor: ink },
      title: { color: ink, subtitleColor: muted },
      text: { color: ink },
      rule: { color: muted },
      view: { stroke: line },
    };
  };
  const draw = (chart) => {
    const spec = JSON.parse($(chart.id.replace("chart-", "spec-")).textContent);
    const before = drawn.get(chart);
    const options = {
      actions: false,
      renderer: "svg",
      config: config(),
      tooltip: { theme: isDark() ? "dark" : "light" },
      // Errors alone: a reader can do nothing about a warning, such as of an empty layer.
      logLevel: 1,
    };
    const drawing = Promise.resolve(before)
      .then((old) => old && old.finalize())
      .then(() => vegaEmbed(chart, spec, options))
      .then((drawing) => {
        // The figure has a name and a caption, and its numbers stand in tables.
        chart.querySelector("svg").setAttribute("aria-hidden", "true");
        return drawing;
      });
    drawn.set(chart, drawing);
    return drawing;
  };
  const drawAll = () => Promise.all(charts.map((chart) => drawn.get(chart) || draw(chart)));
  const redraw = () => Promise.all([...drawn.keys()].map(draw));
  if (charts.length) {
    const seen = new IntersectionObserver(
      (entries) => {
        for (const entry of entries) {
          if (!entry.isIntersecting) continue;
          seen.unobserve(entry.target);
          if (!drawn.has(entry.target)) draw(entry.target);
        }
      },
      { rootMargin: "400px" },
    );
    charts.forEach((chart) => seen.observe(chart));
  }

  const theme = $("theme");
  const showTheme = () => {
    theme.setAttribute("aria-pressed", String(isDark()));
  };
  theme.addEventListener("click", () => {
    root.dataset.theme = isDark() ? "light" : "dark";
    showTheme();
    redraw();
  });
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
    showTheme();
    redraw();
  });
  showTheme();

  // --- print ---------------------------------------------------------------------------------

  let opened = [];
  addEventListener("beforeprint", () => {
    opened = all("details:not([open])");
    opened.forEach((details) => (details.open = true));
    drawAll();
  });
  addEventListener("afterprint", () => opened.forEach((details) => (details.open = false)));
  $("print").addEventListener("click", async () => {
    await drawAll();
    print();
  });

  // --- long tables ---------------------------------------------------------------------------

  for (const button of all("[data-more]")) {
    const label = button.textContent;
    button.addEventListener("click", () => {
      const isAll = $(button.dataset.more).classList.toggle("all");
      button.setAttribute("aria-expanded", String(isAll));
      button.textContent = isAll ? "Show fewer rows" : label;
    });
  }
  const reachable = new ResizeObserver((entries) => {
    for (const { target } of entries) {
      if (target.scrollWidth > target.clientWidth + 1) target.tabIndex = 0;
      else target.removeAttribute("tabindex");
    }
  });
  all(".scroll, .paper, .toc").forEach((box) => reachable.observe(box));

  // --- trials --------------------------------------------------------------------------------

  const table = $("table-trials");
  if (table) {
    const body = table.tBodies[0];
    const entries = [...body.rows].map((row) => ({ row, text: row.textContent.toLowerCase() }));
    const heads = all("th", table.tHead);
    let order = entries;
    let page = 0;

    const number = (text) => {
      const plain = text.replace("\u2212", "-").replace(/[,%+\s]/g, "");
      return plain === "" || Number.isNaN(Number(plain)) ? null : Number(plain);
    };
    const show = () => {
      const wanted = $("filter-text").value.trim().toLowerCase();
      const status = $("filter-status").value;
      const kept = order.filter(
        ({ row, text }) => text.includes(wanted) && (!status || row.cells[3].textContent === status),
      );
      const size = Number($("page-size").value) || kept.length || 1;
      const last = Math.max(0, Math.ceil(kept.length / size) - 1);
      page = Math.min(page, last);
      const visible = new Set(kept.slice(page * size, (page + 1) * size));
      for (const entry of entries) entry.row.classList.toggle("out", !visible.has(entry));
      table.classList.add("ready");
      $("page-back").disabled = page === 0;
      $("page-next").disabled = page === last;
      const range = kept.length ? `${page * size + 1} to ${page * size + visible.size} of ` : "";
      const known = kept.length === entries.length ? "" : ` (of ${entries.length} in all)`;
      $("trial-count").textContent = `${range}${kept.length} trial${kept.length === 1 ? "" : "s"}${known}`;
    };
    const sort = (column, direction) => {
      const keyed = entries.map((entry) => {
        const text = entry.row.cells[column].textContent;
        return { entry, text, value: number(text) };
      });
      const isNumeric = keyed.some(({ value }) => value !== null) && keyed.every(({ text, value }) => value !== null || text === "\u2013");
      keyed.sort((a, b) => {
        if (!isNumeric) return direction * a.text.localeCompare(b.text, "en", { numeric: true });
        // What has no number stays last in both directions.
        if (a.value === null || b.value === null) return (a.value === null) - (b.value === null);
        return direction * (a.value - b.value);
      });
      order = keyed.map(({ entry }) => entry);
      body.append(...order.map(({ row }) => row));
    };
    heads.forEach((head, column) =>
      head.firstElementChild.addEventListener("click", () => {
        const direction = head.getAttribute("aria-sort") === "ascending" ? -1 : 1;
        heads.forEach((other) => other.setAttribute("aria-sort", "none"));
        head.setAttribute("aria-sort", direction > 0 ? "ascending" : "descending");
        sort(column, direction);
        page = 0;
        show();
      }),
    );
    const restart = () => {
      page = 0;
      show();
    };
    $("filter-text").addEventListener("input", restart);
    $("filter-status").addEventListener("change", restart);
    $("page-size").addEventListener("change", restart);
    $("page-back").addEventListener("click", () => { page -= 1; show(); });
    $("page-next").addEventListener("click", () => { page += 1; show(); });
    show();
  }

  // --- downloads -----------------------------------------------------------------------------

  const flat = (row) => {
    const found = {};
    const add = (name, value) => {
      if (value !== null && typeof value === "object") {
        if (Array.isArray(value) || name === "parameters") found[name] = JSON.stringify(value);
        else for (const [key, inner] of Object.entries(value)) add(name ? `${name}.${key}` : key, inner);
      } else found[name] = value;
    };
    add("", row);
    return found;
  };
  const cell = (value) => {
    if (value === null || value === undefined) return "";
    // A spreadsheet would run text that begins so as a formula.
    const text = typeof value === "string" && /^[=+\-@]/.test(value) ? `'${value}` : String(value);
    return /[",\r\n]/.test(text) ? `"${text.replaceAll('"', '""')}"` : text;
  };
  const csv = (rows) => {
    const flats = rows.map(flat);
    const names = [...new Set(flats.flatMap(Object.keys))];
    return [names, ...flats.map((row) => names.map((name) => row[name]))]
      .map((line) => `${line.map(cell).join(",")}\n`)
      .join("");
  };
  const downloads = {
    trials: ["trials.csv", "text/csv", ({ analysis }) => csv(analysis.trials)],
    configurations: ["configurations.csv", "text/csv", ({ analysis }) => csv([...analysis.configurations, ...analysis.controls])],
    analysis: ["analysis.json", "application/json", ({ analysis }) => JSON.stringify(analysis, null, 1)],
    summary: ["summary.md", "text/markdown", ({ summary }) => summary],
  };
  for (const button of all("[data-download]")) {
    button.addEventListener("click", () => {
      const data = JSON.parse($("data").textContent);
      const [name, type, make] = downloads[button.dataset.download];
      const link = document.createElement("a");
      link.href = URL.createObjectURL(new Blob([make(data)], { type: `${type};charset=utf-8` }));
      link.download = `${data.analysis.study.replace(/[^A-Za-z0-9._-]/g, "_")}_${name}`;
      link.click();
      setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    });
  }
})();
