// Excerpts need fetch, which no browser allows on pages opened from a file: there the search lists the pages alone.
if (location.protocol === "file:") DOCUMENTATION_OPTIONS.SHOW_SEARCH_SUMMARY = false;
