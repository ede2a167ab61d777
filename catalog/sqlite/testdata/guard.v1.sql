CREATE VIEW fencepost_issued (generation, epoch, token, revision, claim) AS
	SELECT CAST(substr(token, 2, instr(token, '.') - 2) AS INTEGER), CAST(substr(token, instr(token, '.') + 2) AS INTEGER), token, revision, claim
	FROM (SELECT json_extract(claim, '$.token') AS token, revision, claim FROM claim);
CREATE VIEW fencepost_token (generation, epoch, token, revision, claim) AS
	SELECT CAST(substr(token, 2, instr(token, '.') - 2) AS INTEGER), CAST(substr(token, instr(token, '.') + 2) AS INTEGER), token, revision, claim
	FROM (SELECT json_extract(claim, '$.token') AS token, revision, claim FROM claim ORDER BY revision DESC LIMIT 1);
