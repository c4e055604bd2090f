"""natslease in other packages; each of these needs the package that it is named after."""
