// Markdown of a model as HTML. Nothing of it is trusted: raw HTML is shown as text, images are links, and what is left
// passes a list of allowed elements.

import DOMPurify from "dompurify";
import { Marked, type Token, type TokensList } from "marked";
import { highlight } from "./highlight";

const LINK = /^(?:https?:\/\/|mailto:)/i;
const SANITIZE = {
  ALLOWED_TAGS: [
    "a", "blockquote", "br", "button", "code", "del", "div", "em", "h1", "h2", "h3", "h4", "h5", "h6", "hr", "li",
    "ol", "p", "pre", "span", "strong", "table", "tbody", "td", "th", "thead", "tr", "ul",
  ],
  ALLOWED_ATTR: ["align", "class", "href", "rel", "start", "tabindex", "target", "type"],
  ALLOWED_URI_REGEXP: LINK,
  ADD_URI_SAFE_ATTR: ["align", "rel", "start", "tabindex", "target", "type"], // of which LINK says nothing
  ALLOW_DATA_ATTR: false,
  ALLOW_ARIA_ATTR: false,
  RETURN_TRUSTED_TYPE: true as const,
};

const marked = new Marked({
  gfm: true,
  renderer: {
    html: ({ text }) => escaped(text),
    image: ({ href, text }) => link(href, escaped(text || href)),
    link({ href, tokens }) {
      return link(href, this.parser.parseInline(tokens));
    },
    checkbox: ({ checked }) => (checked ? "☑ " : "☐ "),
    code: ({ text, lang = "" }) => code(text, lang.split(/\s/)[0] ?? ""),
    table(token) {
      const rows = [token.header, ...token.rows].map((cells) => cells.map((cell) => this.tablecell(cell)).join(""));
      const [head, ...body] = rows.map((cells) => `<tr>${cells}</tr>`);
      return `<div class="wide" tabindex="0"><table><thead>${head}</thead><tbody>${body.join("")}</tbody></table></div>`;
    },
  },
});

/** HTML of each block of a text. Blocks found in `known`, by their source, are taken from there; the rest is added. */
export function toBlocks(text: string, known: Map<string, TrustedHTML>): TrustedHTML[] {
  const tokens = marked.lexer(text);
  const definitions = JSON.stringify(tokens.links);
  return tokens
    .filter((token) => token.type !== "space" && token.type !== "def")
    .map((token) => {
      const source = definitions + token.raw;
      const html = known.get(source) ?? sanitized(tokens, token);
      known.set(source, html);
      return html;
    });
}

function sanitized(list: TokensList, token: Token): TrustedHTML {
  const html = marked.parser(Object.assign([token], { links: list.links }));
  return DOMPurify.sanitize(html, SANITIZE) as unknown as TrustedHTML;
}

function code(text: string, language: string): string {
  return (
    `<div class="code"><div class="code-bar"><span>${escaped(language)}</span>` +
    '<button type="button" class="copy">Copy</button></div>' +
    `<pre tabindex="0"><code>${highlight(text, language) ?? escaped(text)}</code></pre></div>`
  );
}

function link(href: string, html: string): string {
  if (!LINK.test(href)) return html;
  return `<a href="${escaped(href)}" target="_blank" rel="noopener noreferrer nofollow">${html}</a>`;
}

function escaped(text: string): string {
  return text.replace(/[&<>"']/g, (character) => `&#${character.charCodeAt(0)};`);
}
