-- Readings of sensors, and what the monthly report takes from them.
CREATE TYPE quality AS ENUM ('good', 'doubtful', 'missing');

CREATE TABLE sensor (
    id integer PRIMARY KEY,
    name text NOT NULL,
    correction numeric DEFAULT 0
);

CREATE TABLE reading (
    sensor_id integer REFERENCES sensor (id),
    taken_at timestamp NOT NULL,
    value numeric,
    grade text DEFAULT 'good'
);

CREATE INDEX reading_time ON reading (taken_at);

/* A value outside the scale of the sensor is doubtful. */
UPDATE reading
SET grade = 'doubtful', value = value * 2 - 1
WHERE value NOT BETWEEN 0 AND 100
  AND taken_at > now() - interval '30 days';

CREATE VIEW monthly AS
SELECT s.name,
       date_trunc('month', r.taken_at) AS month,
       avg(r.value + s.correction) AS mean,
       CASE WHEN count(*) < 10 THEN 'few' ELSE 'enough' END AS support
FROM reading r
JOIN sensor s ON s.id = r.sensor_id
WHERE r.grade = 'good'
GROUP BY s.name, date_trunc('month', r.taken_at);

INSERT INTO sensor (id, name) VALUES (1, 'roof'), (2, 'cellar');

CREATE FUNCTION newest(sensor integer) RETURNS numeric
LANGUAGE sql
AS $$
    SELECT value FROM reading WHERE sensor_id = sensor ORDER BY taken_at DESC LIMIT 1;
$$;

SELECT name FROM sensor
WHERE id IN (SELECT sensor_id FROM reading WHERE coalesce(value, -1) > 50);
