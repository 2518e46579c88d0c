// The OpenAPI document as a page.

function element(tag, content, ...children) {
  const made = document.createElement(tag);
  if (content) made.textContent = content;
  made.append(...children);
  return made;
}

function table(rows) {
  return element("table", "", ...rows.map((cells) => element("tr", "", ...cells.map((cell) => element("td", cell)))));
}

const response = await fetch("openapi.json");
const described = await response.json();
const main = document.getElementById("routes");
main.replaceChildren();
for (const paragraph of described.info.description.split("\n\n")) main.append(element("p", paragraph.replaceAll("`", "")));
for (const [path, methods] of Object.entries(described.paths)) {
  for (const [method, route] of Object.entries(methods)) {
    main.append(element("h2", `${method.toUpperCase()} ${path}`), element("p", route.summary));
    const options = (route.parameters || []).map(({ name, description, schema }) => [
      `?${name}=${schema.default}`,
      description || "",
    ]);
    if (options.length) main.append(table(options));
    if (route.requestBody) {
      const kinds = Object.keys(route.requestBody.content).join(", ");
      main.append(element("p", `${route.requestBody.description} Content-Type: ${kinds}.`));
    }
    main.append(table(Object.entries(route.responses).map(([status, { description }]) => [status, description])));
  }
}
