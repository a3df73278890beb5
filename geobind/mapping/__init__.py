"""Maps of a query: areas, imagery sources, cells, and georeferenced files of how well each cell fits."""
