-- Contents of images and indexes: layers, settings, and the manifests of an index.

alter table manifest
    add column image jsonb check (jsonb_typeof(image) = 'object'),
    add column index jsonb check (jsonb_typeof(index) = 'object');
comment on column manifest.image is
    'Layers and settings of the image, or of one image of an index. Null: no image, or read by an earlier version.';
comment on column manifest.index is
    'Manifests of the index. Null: no index, or read by an earlier version.';
