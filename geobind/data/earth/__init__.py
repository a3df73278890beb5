"""The miniature Earth: real tiles, land cover, relief, climate and cities; rendered views and sounds."""
