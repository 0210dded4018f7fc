"""The browser demo: computation for its tabs, the page, and the server. Needs the extra `demo`."""
