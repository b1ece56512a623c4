import { render } from "preact";
import { App } from "./App";
import { start } from "./state";

start();
render(<App />, document.body);
