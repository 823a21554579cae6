"""Where the images of a study come from: folders, arrays, data sets and data modules of users."""
