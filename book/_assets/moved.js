// On a page that only says where another one is: go there, to the same place in it.
location.replace(document.querySelector("main a").href + location.hash);
