BEGIN TRANSACTION;
CREATE TABLE about (
	"key" TEXT NOT NULL, 
	value TEXT NOT NULL, 
	CONSTRAINT pk_about PRIMARY KEY ("key")
);
INSERT INTO "about" VALUES('release','0.1.0');
CREATE TABLE correction (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	visitor TEXT NOT NULL, 
	kind TEXT NOT NULL, 
	image TEXT NOT NULL, 
	reference TEXT NOT NULL, 
	node TEXT, 
	child TEXT, 
	label TEXT, 
	region TEXT, 
	model TEXT, 
	hierarchy TEXT, 
	time TEXT NOT NULL, 
	note TEXT NOT NULL, 
	photograph_id INTEGER, 
	CONSTRAINT fk_correction_photograph_id_photograph FOREIGN KEY(photograph_id) REFERENCES photograph (id) ON DELETE SET NULL
);
INSERT INTO "correction" VALUES(1,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','label','12f94d849d5f2a13a4c1e1d336dbf6c3b245ca572e87149c8c51ba3d2d7a2dc9','',NULL,NULL,'cat',NULL,'1111111111111111111111111111111111111111111111111111111111111111',NULL,'2026-01-02T03:04:05+00:00','Größe',1);
CREATE TABLE evidence_mark (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	visitor TEXT NOT NULL, 
	evidence TEXT NOT NULL, 
	reference TEXT NOT NULL, 
	bad BOOLEAN NOT NULL, 
	why TEXT NOT NULL, 
	time TEXT NOT NULL
);
INSERT INTO "evidence_mark" VALUES(1,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','eeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeeee','x.png',1,'a watermark','2026-11-29T17:36:54+00:00');
CREATE TABLE hierarchy (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	visitor TEXT NOT NULL, 
	model TEXT NOT NULL, 
	name TEXT NOT NULL, 
	version INTEGER NOT NULL, 
	hash TEXT NOT NULL, 
	time TEXT NOT NULL, 
	content TEXT NOT NULL, 
	edits TEXT NOT NULL, 
	CONSTRAINT uq_hierarchy_model_name_version UNIQUE (model, name, version)
);
INSERT INTO "hierarchy" VALUES(1,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','1111111111111111111111111111111111111111111111111111111111111111','mine',1,'9bd8345357ed6c8e323598ffa5ee765f502eebeb88ab445a35795b6d03b954ca','2026-11-29T17:36:54+00:00','{"format": "nbdt-hierarchy", "version": 1,
 "classes": ["cat", "dog", "car", "bus"],
 "nodes": [
  {"id": "/", "parent": null, "name": "root"},
  {"id": "animal/", "parent": "/", "name": "animal"},
  {"id": "vehicle/", "parent": "/", "name": "vehicle"},
  {"id": "cat", "parent": "animal/"},
  {"id": "dog", "parent": "animal/"},
  {"id": "car", "parent": "vehicle/"},
  {"id": "bus", "parent": "vehicle/"}
]}
','[]');
CREATE TABLE learned (
	model_id INTEGER NOT NULL, 
	correction_id INTEGER NOT NULL, 
	CONSTRAINT pk_learned PRIMARY KEY (model_id, correction_id), 
	CONSTRAINT fk_learned_correction_id_correction FOREIGN KEY(correction_id) REFERENCES correction (id) ON DELETE CASCADE, 
	CONSTRAINT fk_learned_model_id_model_version FOREIGN KEY(model_id) REFERENCES model_version (id) ON DELETE CASCADE
);
INSERT INTO "learned" VALUES(1,1);
CREATE TABLE model_version (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	folder TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	parent TEXT NOT NULL, 
	learned INTEGER NOT NULL, 
	left_out INTEGER NOT NULL, 
	accuracy TEXT NOT NULL, 
	time TEXT NOT NULL, 
	CONSTRAINT uq_model_version_hash UNIQUE (hash)
);
INSERT INTO "model_version" VALUES(1,'/models/one','2222222222222222222222222222222222222222222222222222222222222222','1111111111111111111111111111111111111111111111111111111111111111',1,0,'{"before": {"soft": 0.5}, "after": {"soft": 0.75}}','2026-11-29T17:36:54+00:00');
CREATE TABLE nbdt_schema (
	version_num VARCHAR(32) NOT NULL, 
	CONSTRAINT nbdt_schema_pkc PRIMARY KEY (version_num)
);
INSERT INTO "nbdt_schema" VALUES('1');
CREATE TABLE photograph (
	id INTEGER NOT NULL PRIMARY KEY AUTOINCREMENT, 
	visitor TEXT NOT NULL, 
	hash TEXT NOT NULL, 
	width INTEGER NOT NULL, 
	height INTEGER NOT NULL, 
	size INTEGER NOT NULL, 
	time TEXT NOT NULL, 
	data BLOB NOT NULL, 
	CONSTRAINT uq_photograph_visitor_hash UNIQUE (visitor, hash)
);
INSERT INTO "photograph" VALUES(1,'aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa','12f94d849d5f2a13a4c1e1d336dbf6c3b245ca572e87149c8c51ba3d2d7a2dc9',4,3,36,'2026-11-29T17:36:54+00:00',X'524946461C000000574542505650384C100000002F038000000750C02860FF0311D1FF00');
CREATE INDEX ix_evidence_mark_evidence_visitor ON evidence_mark (evidence, visitor);
CREATE INDEX ix_hierarchy_visitor ON hierarchy (visitor);
CREATE INDEX ix_model_version_parent ON model_version (parent);
CREATE INDEX ix_photograph_hash ON photograph (hash);
CREATE INDEX ix_correction_image ON correction (image);
CREATE INDEX ix_correction_model ON correction (model);
CREATE INDEX ix_correction_photograph_id ON correction (photograph_id);
CREATE INDEX ix_correction_visitor ON correction (visitor);
CREATE INDEX ix_learned_correction_id ON learned (correction_id);
DELETE FROM "sqlite_sequence";
INSERT INTO "sqlite_sequence" VALUES('photograph',1);
INSERT INTO "sqlite_sequence" VALUES('correction',1);
INSERT INTO "sqlite_sequence" VALUES('evidence_mark',1);
INSERT INTO "sqlite_sequence" VALUES('hierarchy',1);
INSERT INTO "sqlite_sequence" VALUES('model_version',1);
COMMIT;
