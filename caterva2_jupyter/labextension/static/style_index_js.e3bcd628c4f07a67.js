"use strict";(self.rspackChunkcaterva2_jupyter=self.rspackChunkcaterva2_jupyter||[]).push([["style_index_js"],{"./node_modules/css-loader/dist/cjs.js!./src/browser/browser.css"(e,r,o){var t=o("./node_modules/css-loader/dist/runtime/noSourceMaps.js"),a=o.n(t),n=o("./node_modules/css-loader/dist/runtime/api.js"),i=(o.n(n))()(a());i.push([e.id,`/* The browser of remote datasets. Colours are those of JupyterLab's theme; the values after the comma are for the page. */
.c2b {
  --c2b-text: var(--jp-ui-font-color1, #212121);
  --c2b-faint: var(--jp-ui-font-color2, #5f6368);
  --c2b-ground: var(--jp-layout-color1, #fff);
  --c2b-raised: var(--jp-layout-color2, #f3f4f6);
  --c2b-border: var(--jp-border-color2, #e0e0e0);
  --c2b-brand: var(--jp-brand-color1, #1769aa);
  --c2b-good: var(--jp-success-color1, #2e8540);
  --c2b-bad: var(--jp-error-color1, #c62828);
  --c2b-warn: var(--jp-warn-color1, #b35900);
  /* Below white text. */
  --c2b-solid: var(--jp-brand-color0, #0d5a9c);

  box-sizing: border-box;
  display: flex;
  flex-direction: column;
  height: 100%;
  min-height: 0;
  overflow: hidden;
  color: var(--c2b-text);
  background: var(--c2b-ground);
  font-family: var(--jp-ui-font-family, system-ui, sans-serif);
  font-size: var(--jp-ui-font-size1, 13px);
  line-height: 1.4;
}
body[data-jp-theme-light='false'] .c2b,
[data-theme='dark'] .c2b {
  --c2b-solid: var(--md-blue-800, #1565c0);
}
.c2b *,
.c2b *::before {
  box-sizing: border-box;
}
.c2b [hidden] {
  display: none !important;
}
.c2b :focus-visible {
  outline: 2px solid var(--c2b-brand);
  outline-offset: -2px;
}
.c2b-icon {
  flex: none;
  width: 16px;
  height: 16px;
  fill: none;
  stroke: currentcolor;
  stroke-width: 1.2;
  stroke-linecap: round;
  stroke-linejoin: round;
}

/* Head */
.c2b-header {
  display: flex;
  flex: none;
  align-items: center;
  justify-content: space-between;
  padding: 8px 8px 4px 12px;
}
.c2b-header h2 {
  margin: 0;
  font-size: 11px;
  font-weight: 600;
  letter-spacing: 0.06em;
  text-transform: uppercase;
  color: var(--c2b-faint);
}
.c2b-header-buttons {
  display: flex;
  gap: 2px;
}
.c2b-search-box {
  position: relative;
  flex: none;
  padding: 2px 8px 8px;
}
.c2b-search {
  width: 100%;
  height: 28px;
  padding: 0 28px 0 8px;
  color: var(--jp-ui-font-color0, #111);
  background: var(--jp-input-background, #fff);
  border: 1px solid var(--jp-border-color1, #bdbdbd);
  border-radius: 4px;
  font: inherit;
}
.c2b-search::placeholder {
  color: var(--jp-ui-font-color2, #6b6f76);
}
.c2b-search::-webkit-search-cancel-button {
  display: none;
}
/* Over what is below: nothing moves when it comes and goes. */
.c2b-search-help {
  display: none;
  position: absolute;
  z-index: 2;
  top: 32px;
  left: 8px;
  right: 8px;
  margin: 0;
  padding: 6px 8px;
  color: var(--c2b-text);
  background: var(--c2b-raised);
  border: 1px solid var(--c2b-border);
  border-radius: 4px;
  font-size: var(--jp-ui-font-size0, 11px);
  pointer-events: none;
}
.c2b-search:focus:placeholder-shown ~ .c2b-search-help {
  display: block;
}
.c2b-clear {
  position: absolute;
  top: 5px;
  right: 11px;
}

/* Buttons */
.c2b-button {
  display: inline-flex;
  align-items: center;
  gap: 5px;
  height: 26px;
  padding: 0 6px;
  color: var(--c2b-text);
  background: transparent;
  border: 1px solid transparent;
  border-radius: 4px;
  font: inherit;
  white-space: nowrap;
  cursor: pointer;
}
.c2b-button:hover:not(:disabled) {
  background: var(--c2b-raised);
}
.c2b-button:disabled,
.c2b-button[aria-disabled='true'] {
  opacity: 0.4;
  cursor: default;
}
.c2b-button[aria-pressed='true'] {
  color: var(--c2b-brand);
}
.c2b-small {
  height: 22px;
  padding: 0 3px;
}
.c2b-toolbar .c2b-button {
  border-color: var(--c2b-border);
}
.c2b-toolbar .c2b-primary {
  color: #fff;
  background: var(--c2b-solid);
  border-color: transparent;
}
.c2b-toolbar .c2b-primary:hover:not(:disabled) {
  background: var(--c2b-solid);
  filter: brightness(1.15);
}
.c2b-link {
  padding: 0;
  color: var(--jp-content-link-color, #1565c0);
  background: none;
  border: 0;
  font: inherit;
  cursor: pointer;
}
.c2b-link:hover {
  text-decoration: underline;
}
.c2b-select {
  height: 26px;
  padding: 0 2px;
  color: var(--c2b-text);
  background: var(--c2b-ground);
  border: 1px solid var(--c2b-border);
  border-radius: 4px;
  font: inherit;
}
.c2b-code {
  display: inline-flex;
}
.c2b-code .c2b-button:not(:last-child) {
  border-radius: 4px 0 0 4px;
}
.c2b-code .c2b-select {
  border-left: 0;
  border-radius: 0 4px 4px 0;
}

/* Tree */
.c2b-body {
  display: flex;
  flex: 1 1 auto;
  flex-direction: column;
  min-height: 0;
}
.c2b-tree {
  position: relative;
  flex: 1 1 60px;
  min-height: 60px;
  overflow: hidden auto;
  outline-offset: -2px;
}
.c2b-tree-canvas {
  position: relative;
}
.c2b-row {
  position: absolute;
  display: flex;
  align-items: center;
  gap: 4px;
  width: 100%;
  height: 24px;
  padding-right: 8px;
  white-space: nowrap;
  cursor: default;
  user-select: none;
}
.c2b-row-node:hover {
  background: var(--c2b-raised);
}
.c2b-row[aria-selected='true'] {
  background: var(--jp-layout-color3, #dfe3e8);
}
.c2b-tree:focus .c2b-row[aria-selected='true'] {
  color: #fff;
  background: var(--c2b-solid);
}
.c2b-row[aria-selected='true'] .c2b-facts {
  color: inherit;
}
.c2b-tree:focus .c2b-row[aria-selected='true'] :is(.c2b-facts, .c2b-kind, .c2b-twisty, .c2b-followed) {
  color: inherit;
}
.c2b-row-root .c2b-name {
  font-weight: 600;
}
.c2b-twisty {
  width: 14px;
  color: var(--c2b-faint);
  cursor: pointer;
  transition: transform 0.1s;
}
.c2b-twisty-open {
  transform: rotate(90deg);
}
.c2b-twisty-none {
  visibility: hidden;
}
.c2b-kind {
  color: var(--c2b-faint);
}
.c2b-icon-array.c2b-kind {
  color: var(--c2b-brand);
}
.c2b-icon-unsupported.c2b-kind {
  color: var(--c2b-warn);
}
/* A name may take all there is; it must not shrink by less than a pixel, which would cost it three letters. */
.c2b-name {
  flex: none;
  max-width: calc(100% - 42px);
  overflow: hidden;
  text-overflow: ellipsis;
}
.c2b-facts {
  flex: 0 1 auto;
  min-width: 0;
  margin-left: auto;
  padding-left: 8px;
  overflow: hidden;
  color: var(--c2b-faint);
  font-size: 11px;
  font-variant-numeric: tabular-nums;
  text-overflow: ellipsis;
}
.c2b-root-state {
  display: inline-flex;
  flex: none;
  align-items: center;
  gap: 6px;
  margin-left: auto;
}
.c2b-followed {
  width: 13px;
  height: 13px;
  color: var(--c2b-brand);
  fill: currentcolor;
}
.c2b-dot {
  display: inline-block;
  flex: none;
  width: 8px;
  height: 8px;
  border-radius: 50%;
}
.c2b-online {
  background: var(--c2b-good);
}
.c2b-offline {
  border: 2px solid var(--c2b-faint);
}
.c2b-tree:focus .c2b-row[aria-selected='true'] .c2b-offline {
  border-color: currentcolor;
}
.c2b-row.c2b-drop {
  outline: 2px dashed var(--c2b-brand);
  outline-offset: -2px;
}
.c2b-kept {
  flex: none;
  width: 6px;
  height: 6px;
  background: var(--c2b-good);
  border-radius: 50%;
}
.c2b-note {
  padding-left: 18px;
  overflow: hidden;
  color: var(--c2b-faint);
  font-style: italic;
  text-overflow: ellipsis;
}
.c2b-row-failure {
  cursor: pointer;
}
.c2b-row-failure .c2b-note {
  color: var(--c2b-bad);
  font-style: normal;
}
.c2b-flash::before {
  position: absolute;
  inset: 0;
  background: var(--jp-warn-color2, #ffb74d);
  opacity: 0;
  content: '';
  pointer-events: none;
  animation: c2b-flash 2.5s ease-out;
}
@keyframes c2b-flash {
  from {
    opacity: 0.45;
  }
}
@media (prefers-reduced-motion: reduce) {
  .c2b-flash::before,
  .c2b-twisty {
    transition: none;
    animation-timing-function: steps(1);
  }
}
.c2b-splitter {
  flex: none;
  height: 5px;
  background: var(--c2b-border);
  background-clip: content-box;
  padding: 2px 0;
  cursor: row-resize;
}
.c2b-splitter:has(+ [hidden]) {
  display: none;
}
.c2b-splitter:hover {
  background-color: var(--c2b-brand);
}

/* Properties */
.c2b-details {
  flex: 0 0 50%;
  max-height: calc(100% - 60px);
  padding: 8px 12px 12px;
  overflow: auto;
}
.c2b-heading {
  display: flex;
  align-items: center;
  gap: 6px;
  margin: 0 0 8px;
  font-size: 14px;
  font-weight: 600;
}
.c2b-heading span {
  min-width: 0;
  overflow-wrap: anywhere;
}
.c2b-toolbar {
  display: flex;
  flex-wrap: wrap;
  gap: 4px;
  margin-bottom: 10px;
}
.c2b-facts-list {
  display: grid;
  grid-template-columns: max-content minmax(0, 1fr);
  gap: 3px 12px;
  margin: 0;
}
.c2b-facts-list dt {
  color: var(--c2b-faint);
}
.c2b-facts-list dd {
  margin: 0;
  overflow-wrap: anywhere;
  font-variant-numeric: tabular-nums;
}
.c2b-cache-state progress {
  display: block;
  margin: 5px 0 3px;
}
.c2b progress {
  width: 100%;
  height: 5px;
  overflow: hidden;
  background: var(--c2b-border);
  border: 0;
  border-radius: 3px;
  appearance: none;
}
.c2b progress::-webkit-progress-bar {
  background: var(--c2b-border);
}
.c2b progress::-webkit-progress-value {
  background: var(--c2b-brand);
}
.c2b progress::-moz-progress-bar {
  background: var(--c2b-brand);
}
.c2b-attributes h4 {
  margin: 12px 0 4px;
  font-size: inherit;
  font-weight: 600;
}
.c2b-attributes table {
  width: 100%;
  border-collapse: collapse;
}
.c2b-attributes :is(th, td) {
  max-width: 0;
  padding: 3px 6px 3px 0;
  border-top: 1px solid var(--c2b-border);
  font-weight: normal;
  text-align: left;
  vertical-align: top;
  overflow-wrap: anywhere;
}
.c2b-attributes th {
  width: 43%;
  color: var(--c2b-faint);
}
.c2b-attributes td {
  white-space: pre-wrap;
}
.c2b-faint {
  color: var(--c2b-faint);
}
.c2b-bad,
.c2b-reason {
  color: var(--c2b-bad);
}
.c2b-badge {
  margin-left: 6px;
  padding: 0 6px;
  color: var(--c2b-brand);
  border: 1px solid currentcolor;
  border-radius: 9px;
  font-size: 11px;
}

/* Notices and tasks */
.c2b-notice {
  margin: 8px;
  padding: 12px;
  background: var(--c2b-raised);
  border-left: 3px solid var(--c2b-brand);
  border-radius: 4px;
  overflow-wrap: anywhere;
}
.c2b-notice[role='alert'] {
  border-left-color: var(--c2b-bad);
}
.c2b-notice p {
  margin: 6px 0 10px;
}
.c2b-notice .c2b-button {
  border-color: var(--jp-border-color1, #bdbdbd);
}
.c2b-tasks {
  flex: none;
  max-height: 40%;
  overflow: auto;
  border-top: 1px solid var(--c2b-border);
}
.c2b-tasks:not(:has(.c2b-task)):has(.c2b-message:empty) {
  border-top: 0;
}
.c2b-task {
  display: grid;
  grid-template-columns: minmax(0, 2fr) minmax(40px, 1fr) 36px 24px;
  align-items: center;
  gap: 6px;
  padding: 4px 8px 4px 12px;
}
.c2b-task-name {
  overflow: hidden;
  text-overflow: ellipsis;
  white-space: nowrap;
}
.c2b-percent {
  color: var(--c2b-faint);
  text-align: right;
}
.c2b-message {
  margin: 0;
  overflow-wrap: anywhere;
}
.c2b-message:not(:empty) {
  padding: 6px 12px;
}

/* Running state */
.c2b-state {
  padding: 8px 16px 16px;
  overflow: auto;
}
.c2b-cards {
  display: grid;
  grid-template-columns: repeat(auto-fit, minmax(150px, 1fr));
  gap: 12px;
  margin: 8px 4px 16px;
}
.c2b-card {
  display: flex;
  flex-direction: column;
  gap: 4px;
  padding: 12px 14px;
  background: var(--c2b-raised);
  border-radius: 6px;
}
.c2b-card h3 {
  margin: 0;
  color: var(--c2b-faint);
  font-size: 12px;
  font-weight: 500;
}
.c2b-card strong {
  font-size: 22px;
  font-weight: 600;
  font-variant-numeric: tabular-nums;
}
.c2b-problems {
  margin: 0 4px 16px;
  padding: 8px 12px 8px 28px;
  background: var(--c2b-raised);
  border-left: 3px solid var(--c2b-warn);
  border-radius: 4px;
}
.c2b-well {
  margin: 0 4px 16px;
  color: var(--c2b-faint);
}
.c2b-table {
  width: 100%;
  border-collapse: collapse;
}
.c2b-table :is(th, td) {
  padding: 6px 12px 6px 4px;
  border-bottom: 1px solid var(--c2b-border);
  font-weight: normal;
  text-align: left;
  font-variant-numeric: tabular-nums;
}
.c2b-table thead th {
  color: var(--c2b-faint);
}

/* Forms of areas */
.c2b-form {
  margin-bottom: 10px;
  padding: 8px;
  background: var(--c2b-raised);
  border-radius: 4px;
}
.c2b-form p {
  margin: 0 0 8px;
  overflow-wrap: anywhere;
}
.c2b-form .c2b-search {
  margin: 4px 0 8px;
  padding-right: 8px;
}
.c2b-form .c2b-toolbar {
  margin: 0;
}
.c2b-toolbar .c2b-danger {
  color: #fff;
  background: var(--jp-error-color0, #b71c1c);
  border-color: transparent;
}
.c2b-tasks > .c2b-form {
  margin: 8px;
}
`,""]),o.d(r,{},{A:i})},"./node_modules/css-loader/dist/cjs.js!./style/base.css"(e,r,o){var t=o("./node_modules/css-loader/dist/runtime/noSourceMaps.js"),a=o.n(t),n=o("./node_modules/css-loader/dist/runtime/api.js"),i=o.n(n),c=o("./node_modules/css-loader/dist/cjs.js!./src/browser/browser.css"),s=i()(a());s.i(c.A),s.push([e.id,`.c2-panel {
  min-width: 240px;
  overflow: hidden;
}
.c2-viewer-tab,
.c2-state-tab {
  height: 100%;
  overflow: hidden;
  background: var(--jp-layout-color1);
}
.c2-viewer-host {
  width: 100%;
  height: 100%;
}
.c2-viewer-wait,
.c2-viewer-failure {
  margin: 24px;
  color: var(--jp-ui-font-color1);
  font-size: var(--jp-ui-font-size1);
}
.c2-viewer-failure {
  max-width: 60ch;
  padding: 12px 16px;
  background: var(--jp-layout-color2);
  border-left: 3px solid var(--jp-error-color1);
}
.c2-state-item {
  display: flex;
}
.c2-state-button {
  padding: 0 6px;
  color: inherit;
  background: none;
  border: 0;
  font: inherit;
  cursor: pointer;
}
.c2-state-button:hover {
  background: var(--jp-layout-color3);
}
.c2-state-button.c2-state-bad::before {
  color: var(--jp-warn-color1);
  content: '▲ ';
}
`,""]),o.d(r,{},{A:s})},"./node_modules/css-loader/dist/runtime/api.js"(e){e.exports=function(e){var r=[];return r.toString=function(){return this.map(function(r){var o="",t=void 0!==r[5];return r[4]&&(o+="@supports (".concat(r[4],") {")),r[2]&&(o+="@media ".concat(r[2]," {")),t&&(o+="@layer".concat(r[5].length>0?" ".concat(r[5]):""," {")),o+=e(r),t&&(o+="}"),r[2]&&(o+="}"),r[4]&&(o+="}"),o}).join("")},r.i=function(e,o,t,a,n){"string"==typeof e&&(e=[[null,e,void 0]]);var i={};if(t)for(var c=0;c<this.length;c++){var s=this[c][0];null!=s&&(i[s]=!0)}for(var d=0;d<e.length;d++){var l=[].concat(e[d]);t&&i[l[0]]||(void 0!==n&&(void 0===l[5]||(l[1]="@layer".concat(l[5].length>0?" ".concat(l[5]):""," {").concat(l[1],"}")),l[5]=n),o&&(l[2]&&(l[1]="@media ".concat(l[2]," {").concat(l[1],"}")),l[2]=o),a&&(l[4]?(l[1]="@supports (".concat(l[4],") {").concat(l[1],"}"),l[4]=a):l[4]="".concat(a)),r.push(l))}},r}},"./node_modules/css-loader/dist/runtime/noSourceMaps.js"(e){e.exports=function(e){return e[1]}},"./node_modules/style-loader/dist/runtime/injectStylesIntoStyleTag.js"(e){var r=[];function o(e){for(var o=-1,t=0;t<r.length;t++)if(r[t].identifier===e){o=t;break}return o}function t(e,t){for(var a={},n=[],i=0;i<e.length;i++){var c=e[i],s=t.base?c[0]+t.base:c[0],d=a[s]||0,l="".concat(s," ").concat(d);a[s]=d+1;var b=o(l),p={css:c[1],media:c[2],sourceMap:c[3],supports:c[4],layer:c[5]};if(-1!==b)r[b].references++,r[b].updater(p);else{var u=function(e,r){var o=r.domAPI(r);return o.update(e),function(r){r?(r.css!==e.css||r.media!==e.media||r.sourceMap!==e.sourceMap||r.supports!==e.supports||r.layer!==e.layer)&&o.update(e=r):o.remove()}}(p,t);t.byIndex=i,r.splice(i,0,{identifier:l,updater:u,references:1})}n.push(l)}return n}e.exports=function(e,a){var n=t(e=e||[],a=a||{});return function(e){e=e||[];for(var i=0;i<n.length;i++){var c=o(n[i]);r[c].references--}for(var s=t(e,a),d=0;d<n.length;d++){var l=o(n[d]);0===r[l].references&&(r[l].updater(),r.splice(l,1))}n=s}}},"./node_modules/style-loader/dist/runtime/insertBySelector.js"(e){var r={};e.exports=function(e,o){var t=function(e){if(void 0===r[e]){var o=document.querySelector(e);if(window.HTMLIFrameElement&&o instanceof window.HTMLIFrameElement)try{o=o.contentDocument.head}catch(e){o=null}r[e]=o}return r[e]}(e);if(!t)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");t.appendChild(o)}},"./node_modules/style-loader/dist/runtime/insertStyleElement.js"(e){e.exports=function(e){var r=document.createElement("style");return e.setAttributes(r,e.attributes),e.insert(r,e.options),r}},"./node_modules/style-loader/dist/runtime/setAttributesWithoutAttributes.js"(e,r,o){e.exports=function(e){var r=o.nc;r&&e.setAttribute("nonce",r)}},"./node_modules/style-loader/dist/runtime/styleDomAPI.js"(e){e.exports=function(e){if("u"<typeof document)return{update:function(){},remove:function(){}};var r=e.insertStyleElement(e);return{update:function(o){var t,a,n;t="",o.supports&&(t+="@supports (".concat(o.supports,") {")),o.media&&(t+="@media ".concat(o.media," {")),(a=void 0!==o.layer)&&(t+="@layer".concat(o.layer.length>0?" ".concat(o.layer):""," {")),t+=o.css,a&&(t+="}"),o.media&&(t+="}"),o.supports&&(t+="}"),(n=o.sourceMap)&&"u">typeof btoa&&(t+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(n))))," */")),e.styleTagTransform(t,r,e.options)},remove:function(){var e;null===(e=r).parentNode||e.parentNode.removeChild(e)}}}},"./node_modules/style-loader/dist/runtime/styleTagTransform.js"(e){e.exports=function(e,r){if(r.styleSheet)r.styleSheet.cssText=e;else{for(;r.firstChild;)r.removeChild(r.firstChild);r.appendChild(document.createTextNode(e))}}},"./style/index.js"(e,r,o){var t=o("./node_modules/style-loader/dist/runtime/injectStylesIntoStyleTag.js"),a=o.n(t),n=o("./node_modules/style-loader/dist/runtime/styleDomAPI.js"),i=o.n(n),c=o("./node_modules/style-loader/dist/runtime/insertBySelector.js"),s=o.n(c),d=o("./node_modules/style-loader/dist/runtime/setAttributesWithoutAttributes.js"),l=o.n(d),b=o("./node_modules/style-loader/dist/runtime/insertStyleElement.js"),p=o.n(b),u=o("./node_modules/style-loader/dist/runtime/styleTagTransform.js"),f=o.n(u),x=o("./node_modules/css-loader/dist/cjs.js!./style/base.css"),h={};h.styleTagTransform=f(),h.setAttributes=l(),h.insert=s().bind(null,"head"),h.domAPI=i(),h.insertStyleElement=p(),a()(x.A,h),x.A&&x.A.locals&&x.A.locals}}]);