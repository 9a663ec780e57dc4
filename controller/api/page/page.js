// The page to try the API: made from /openapi.json, which says everything that it shows. What comes from the controller is
// put in as text, never as HTML: names and reasons can be a guest's.
"use strict";

const SOCKET = "/run/fleetswitch/api.sock";
const MOST_CHARACTERS = 300000; // of an answer; the browser shows the rest with "open alone"
const element = (id) => document.getElementById(id);
let operations = [];
let chosen = null;
let drawn = null;

function make(name, text, about = {}) {
  const made = Object.assign(document.createElement(name), about);
  if (text) made.textContent = text;
  return made;
}

function listed(spec) {
  return Object.entries(spec.paths).flatMap(([path, methods]) =>
    Object.entries(methods).map(([method, one]) => ({ ...one, path, method: method.toUpperCase() })))
    .filter((one) => !/^\/api($|\/page)/.test(one.path));
}

// Operations of one word of the path stand together; those that are alone there come last.
function group(operation) {
  const word = (one) => one.path.split("/")[3];
  const many = word(operation) && operations.filter((one) => word(one) === word(operation)).length > 1;
  return many ? word(operation) : "more";
}

function showList() {
  const words = element("filter").value.toLowerCase().split(/\s+/);
  const groups = new Map();
  for (const one of operations) {
    const text = `${one.method} ${one.path} ${one.operationId} ${one.summary}`.toLowerCase();
    if (words.every((word) => text.includes(word))) groups.set(group(one), [...(groups.get(group(one)) || []), one]);
  }
  const ordered = [...groups].sort(([one], [other]) => (one === "more") - (other === "more"));
  element("operations").replaceChildren(...ordered.map(([title, found]) => {
    const item = make("li");
    item.append(make("h3", title), ...found.map((one) => {
      const link = make("a", "", { href: `#${one.operationId}`, title: one.summary });
      if (one === chosen) link.setAttribute("aria-current", "true");
      link.append(make("span", one.method, { className: `method ${one.method}` }), one.path.replace("/api/v1", ""));
      return link;
    }));
    return item;
  }));
}

function field(parameter) {
  const { name, schema = {}, required, description = "" } = parameter;
  const choices = schema.enum || (schema.type === "boolean" ? ["true", "false"] : null);
  const input = make(choices ? "select" : "input", "", { id: `of-${name}`, name, required: Boolean(required) });
  if (choices) input.append(...["", ...choices].map((text) => make("option", text, { value: text })));
  else if (schema.default !== undefined) input.placeholder = schema.default;
  const label = make("label", name, { htmlFor: input.id, className: required ? "required" : "" });
  return [label, input, make("small", description || (parameter.in === "path" ? "part of the path" : ""))];
}

function choose() {
  chosen = operations.find((one) => `#${one.operationId}` === location.hash) || null;
  element("welcome").hidden = Boolean(chosen);
  element("operation").hidden = !chosen;
  element("answer").hidden = true;
  showList();
  if (!chosen) return;
  const reads = chosen.method === "GET";
  Object.assign(element("method"), { textContent: chosen.method, className: `method ${chosen.method}` });
  element("path").textContent = chosen.path;
  element("summary").textContent = chosen.summary;
  element("fields").replaceChildren(...chosen.parameters.flatMap(field));
  if (chosen.requestBody) {
    element("fields").append(make("label", "body", { htmlFor: "body", className: "required" }),
      make("textarea", "", { id: "body", spellcheck: false, placeholder: "JSON" }));
  }
  element("only-here").hidden = reads;
  element("ask").hidden = !reads;
  showCommand();
}

// The path with its query, and the headers, of what is filled in.
function request() {
  let path = chosen.path;
  const query = new URLSearchParams();
  const headers = {};
  for (const parameter of chosen.parameters) {
    const value = element(`of-${parameter.name}`).value;
    if (parameter.in === "path") {
      path = path.replace(`{${parameter.name}}`, (part) => (value ? encodeURIComponent(value) : part));
    } else if (value && parameter.in === "query") query.append(parameter.name, value);
    else if (value && parameter.in === "header") headers[parameter.name] = value;
  }
  return { url: path + (query.size ? `?${query}` : ""), headers };
}

function quoted(text) {
  return /^[\w@%+=:,./-]+$/.test(text) ? text : `'${text.replaceAll("'", "'\\''")}'`;
}

function showCommand() {
  const { url, headers } = request();
  const words = ["curl"];
  if (chosen.method !== "GET") words.push("--unix-socket", SOCKET, "-X", chosen.method);
  for (const [name, value] of Object.entries(headers)) words.push("-H", `${name}: ${value}`);
  if (chosen.requestBody) words.push("-H", "Content-Type: application/json", "--data", element("body").value);
  words.push((chosen.method === "GET" ? location.origin : "http://localhost") + url);
  element("command").textContent = words.map(quoted).join(" ");
}

async function ask(event) {
  event.preventDefault();
  if (chosen.method !== "GET") return;
  const { url, headers } = request();
  const asked = chosen;
  const begun = performance.now();
  element("ask").disabled = true;
  try {
    const response = await fetch(url, { headers: { Accept: "application/json, */*;q=0.5", ...headers } });
    const body = await response.blob();
    if (asked === chosen) await showAnswer(url, response, body, performance.now() - begun);
  } catch (error) {
    showStatus("no answer", true, String(error));
    element("text").textContent = "Does the controller run, and does the way to it stand?";
  } finally {
    element("ask").disabled = false;
  }
}

function showStatus(text, isBad, about) {
  element("answer").hidden = false;
  Object.assign(element("status"), { textContent: text, className: isBad ? "bad" : "" });
  element("about").textContent = about;
  element("drawing").hidden = element("alone").hidden = true;
  element("text").hidden = false;
}

async function showAnswer(url, response, body, milliseconds) {
  const media = (response.headers.get("Content-Type") || "").split(";")[0];
  const size = body.size < 10000 ? `${body.size} bytes` : `${Math.round(body.size / 1000)} kB`;
  showStatus(`${response.status} ${response.statusText}`, !response.ok, `${media}, ${size}, ${Math.round(milliseconds)} ms`);
  Object.assign(element("alone"), { hidden: false, href: url });
  let text = await body.text();
  if (/json$/.test(media)) text = JSON.stringify(JSON.parse(text), null, 2);
  if (media === "image/svg+xml") {
    if (drawn) URL.revokeObjectURL(drawn);
    drawn = URL.createObjectURL(body);
    Object.assign(element("drawing"), { src: drawn, hidden: false });
  }
  const more = text.length > MOST_CHARACTERS ? "\n… and more: open it alone" : "";
  element("text").textContent = text.slice(0, MOST_CHARACTERS) + more;
  element("text").hidden = media === "image/svg+xml";
  element("answer").scrollIntoView({ block: "nearest" });
}

async function start() {
  const response = await fetch("/openapi.json");
  if (!response.ok) throw new Error(`/openapi.json: ${response.status} ${response.statusText}`);
  const spec = await response.json();
  operations = listed(spec);
  element("version").textContent = spec.info.version;
  element("filter").addEventListener("input", showList);
  element("fields").addEventListener("input", showCommand);
  element("form").addEventListener("submit", ask);
  addEventListener("hashchange", choose);
  choose();
}

start().catch((error) => element("welcome").append(make("p", String(error), { className: "bad" })));
