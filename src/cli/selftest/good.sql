--
-- PostgreSQL database dump
--

\restrict 8754etgQhjQelTBGfMb3d1gWD4JoNRACAkJthY2zO1xPBnLR52vdBn4dtvnNN6r

-- Dumped from database version 15.18 (Debian 15.18-0+deb12u1)
-- Dumped by pg_dump version 15.18 (Debian 15.18-0+deb12u1)

SET statement_timeout = 0;
SET lock_timeout = 0;
SET idle_in_transaction_session_timeout = 0;
SET client_encoding = 'UTF8';
SET standard_conforming_strings = on;
SELECT pg_catalog.set_config('search_path', '', false);
SET check_function_bodies = false;
SET xmloption = content;
SET client_min_messages = warning;
SET row_security = off;

--
-- Name: s; Type: SCHEMA; Schema: -; Owner: postgres
--

CREATE SCHEMA s;


ALTER SCHEMA s OWNER TO postgres;

--
-- Name: mood; Type: TYPE; Schema: s; Owner: postgres
--

CREATE TYPE s.mood AS ENUM (
    'sad',
    'ok'
);


ALTER TYPE s.mood OWNER TO postgres;

--
-- Name: add(integer, integer); Type: FUNCTION; Schema: s; Owner: postgres
--

CREATE FUNCTION s.add(a integer, b integer) RETURNS integer
    LANGUAGE plpgsql
    AS $$ BEGIN RETURN a + b; -- ; '
END $$;


ALTER FUNCTION s.add(a integer, b integer) OWNER TO postgres;

SET default_tablespace = '';

SET default_table_access_method = heap;

--
-- Name: child; Type: TABLE; Schema: s; Owner: postgres
--

CREATE TABLE s.child (
    id integer NOT NULL,
    parent_id integer,
    v numeric(8,2),
    tags text[]
);


ALTER TABLE s.child OWNER TO postgres;

--
-- Name: TABLE child; Type: COMMENT; Schema: s; Owner: postgres
--

COMMENT ON TABLE s.child IS 'it''s; a child';


--
-- Name: child_id_seq; Type: SEQUENCE; Schema: s; Owner: postgres
--

ALTER TABLE s.child ALTER COLUMN id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME s.child_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);


--
-- Name: parent; Type: TABLE; Schema: s; Owner: postgres
--

CREATE TABLE s.parent (
    id integer NOT NULL,
    mood s.mood DEFAULT 'ok'::s.mood,
    note text,
    at timestamp with time zone,
    CONSTRAINT parent_note_check CHECK ((note <> ''::text))
);


ALTER TABLE s.parent OWNER TO postgres;

--
-- Name: counts; Type: MATERIALIZED VIEW; Schema: s; Owner: postgres
--

CREATE MATERIALIZED VIEW s.counts AS
 SELECT parent.mood,
    count(*) AS count
   FROM s.parent
  GROUP BY parent.mood
  WITH NO DATA;


ALTER TABLE s.counts OWNER TO postgres;

--
-- Name: happy; Type: VIEW; Schema: s; Owner: postgres
--

CREATE VIEW s.happy AS
 SELECT parent.id,
    parent.note
   FROM s.parent
  WHERE (parent.mood = 'ok'::s.mood);


ALTER TABLE s.happy OWNER TO postgres;

--
-- Name: parent_id_seq; Type: SEQUENCE; Schema: s; Owner: postgres
--

CREATE SEQUENCE s.parent_id_seq
    AS integer
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;


ALTER TABLE s.parent_id_seq OWNER TO postgres;

--
-- Name: parent_id_seq; Type: SEQUENCE OWNED BY; Schema: s; Owner: postgres
--

ALTER SEQUENCE s.parent_id_seq OWNED BY s.parent.id;


--
-- Name: part; Type: TABLE; Schema: s; Owner: postgres
--

CREATE TABLE s.part (
    a integer,
    b text
)
PARTITION BY RANGE (a);


ALTER TABLE s.part OWNER TO postgres;

--
-- Name: part_1; Type: TABLE; Schema: s; Owner: postgres
--

CREATE TABLE s.part_1 (
    a integer,
    b text
);


ALTER TABLE s.part_1 OWNER TO postgres;

--
-- Name: part_2; Type: TABLE; Schema: s; Owner: postgres
--

CREATE TABLE s.part_2 (
    a integer,
    b text
);


ALTER TABLE s.part_2 OWNER TO postgres;

--
-- Name: part_1; Type: TABLE ATTACH; Schema: s; Owner: postgres
--

ALTER TABLE ONLY s.part ATTACH PARTITION s.part_1 FOR VALUES FROM (0) TO (100);


--
-- Name: part_2; Type: TABLE ATTACH; Schema: s; Owner: postgres
--

ALTER TABLE ONLY s.part ATTACH PARTITION s.part_2 DEFAULT;


--
-- Name: parent id; Type: DEFAULT; Schema: s; Owner: postgres
--

ALTER TABLE ONLY s.parent ALTER COLUMN id SET DEFAULT nextval('s.parent_id_seq'::regclass);


--
-- Name: 9001; Type: BLOB; Schema: -; Owner: postgres
--

SELECT pg_catalog.lo_create('9001');


ALTER LARGE OBJECT 9001 OWNER TO postgres;

--
-- Name: LARGE OBJECT 9001; Type: COMMENT; Schema: -; Owner: postgres
--

COMMENT ON LARGE OBJECT 9001 IS 'coffee';


--
-- Name: 9002; Type: BLOB; Schema: -; Owner: postgres
--

SELECT pg_catalog.lo_create('9002');


ALTER LARGE OBJECT 9002 OWNER TO postgres;

--
-- Data for Name: child; Type: TABLE DATA; Schema: s; Owner: postgres
--

COPY s.child (id, parent_id, v, tags) FROM stdin;
1	2	0.14	{"a b",NULL,"\\""}
2	3	0.29	{"a b",NULL,"\\""}
3	4	0.43	{"a b",NULL,"\\""}
4	5	0.57	{"a b",NULL,"\\""}
5	6	0.71	\N
6	7	0.86	{"a b",NULL,"\\""}
7	8	1.00	{"a b",NULL,"\\""}
8	9	1.14	{"a b",NULL,"\\""}
9	10	1.29	{"a b",NULL,"\\""}
10	11	1.43	\N
11	12	1.57	{"a b",NULL,"\\""}
12	13	1.71	{"a b",NULL,"\\""}
13	14	1.86	{"a b",NULL,"\\""}
14	15	2.00	{"a b",NULL,"\\""}
15	16	2.14	\N
16	17	2.29	{"a b",NULL,"\\""}
17	18	2.43	{"a b",NULL,"\\""}
18	19	2.57	{"a b",NULL,"\\""}
19	20	2.71	{"a b",NULL,"\\""}
20	21	2.86	\N
21	22	3.00	{"a b",NULL,"\\""}
22	23	3.14	{"a b",NULL,"\\""}
23	24	3.29	{"a b",NULL,"\\""}
24	25	3.43	{"a b",NULL,"\\""}
25	26	3.57	\N
26	27	3.71	{"a b",NULL,"\\""}
27	28	3.86	{"a b",NULL,"\\""}
28	29	4.00	{"a b",NULL,"\\""}
29	30	4.14	{"a b",NULL,"\\""}
30	31	4.29	\N
31	32	4.43	{"a b",NULL,"\\""}
32	33	4.57	{"a b",NULL,"\\""}
33	34	4.71	{"a b",NULL,"\\""}
34	35	4.86	{"a b",NULL,"\\""}
35	36	5.00	\N
36	37	5.14	{"a b",NULL,"\\""}
37	38	5.29	{"a b",NULL,"\\""}
38	39	5.43	{"a b",NULL,"\\""}
39	40	5.57	{"a b",NULL,"\\""}
40	41	5.71	\N
41	42	5.86	{"a b",NULL,"\\""}
42	43	6.00	{"a b",NULL,"\\""}
43	44	6.14	{"a b",NULL,"\\""}
44	45	6.29	{"a b",NULL,"\\""}
45	46	6.43	\N
46	47	6.57	{"a b",NULL,"\\""}
47	48	6.71	{"a b",NULL,"\\""}
48	49	6.86	{"a b",NULL,"\\""}
49	50	7.00	{"a b",NULL,"\\""}
50	51	7.14	\N
51	52	7.29	{"a b",NULL,"\\""}
52	53	7.43	{"a b",NULL,"\\""}
53	54	7.57	{"a b",NULL,"\\""}
54	55	7.71	{"a b",NULL,"\\""}
55	56	7.86	\N
56	57	8.00	{"a b",NULL,"\\""}
57	58	8.14	{"a b",NULL,"\\""}
58	59	8.29	{"a b",NULL,"\\""}
59	60	8.43	{"a b",NULL,"\\""}
60	61	8.57	\N
61	62	8.71	{"a b",NULL,"\\""}
62	63	8.86	{"a b",NULL,"\\""}
63	64	9.00	{"a b",NULL,"\\""}
64	65	9.14	{"a b",NULL,"\\""}
65	66	9.29	\N
66	67	9.43	{"a b",NULL,"\\""}
67	68	9.57	{"a b",NULL,"\\""}
68	69	9.71	{"a b",NULL,"\\""}
69	70	9.86	{"a b",NULL,"\\""}
70	71	10.00	\N
71	72	10.14	{"a b",NULL,"\\""}
72	73	10.29	{"a b",NULL,"\\""}
73	74	10.43	{"a b",NULL,"\\""}
74	75	10.57	{"a b",NULL,"\\""}
75	76	10.71	\N
76	77	10.86	{"a b",NULL,"\\""}
77	78	11.00	{"a b",NULL,"\\""}
78	79	11.14	{"a b",NULL,"\\""}
79	80	11.29	{"a b",NULL,"\\""}
80	81	11.43	\N
81	82	11.57	{"a b",NULL,"\\""}
82	83	11.71	{"a b",NULL,"\\""}
83	84	11.86	{"a b",NULL,"\\""}
84	85	12.00	{"a b",NULL,"\\""}
85	86	12.14	\N
86	87	12.29	{"a b",NULL,"\\""}
87	88	12.43	{"a b",NULL,"\\""}
88	89	12.57	{"a b",NULL,"\\""}
89	90	12.71	{"a b",NULL,"\\""}
90	91	12.86	\N
91	92	13.00	{"a b",NULL,"\\""}
92	93	13.14	{"a b",NULL,"\\""}
93	94	13.29	{"a b",NULL,"\\""}
94	95	13.43	{"a b",NULL,"\\""}
95	96	13.57	\N
96	97	13.71	{"a b",NULL,"\\""}
97	98	13.86	{"a b",NULL,"\\""}
98	99	14.00	{"a b",NULL,"\\""}
99	100	14.14	{"a b",NULL,"\\""}
100	101	14.29	\N
101	102	14.43	{"a b",NULL,"\\""}
102	103	14.57	{"a b",NULL,"\\""}
103	104	14.71	{"a b",NULL,"\\""}
104	105	14.86	{"a b",NULL,"\\""}
105	106	15.00	\N
106	107	15.14	{"a b",NULL,"\\""}
107	108	15.29	{"a b",NULL,"\\""}
108	109	15.43	{"a b",NULL,"\\""}
109	110	15.57	{"a b",NULL,"\\""}
110	111	15.71	\N
111	112	15.86	{"a b",NULL,"\\""}
112	113	16.00	{"a b",NULL,"\\""}
113	114	16.14	{"a b",NULL,"\\""}
114	115	16.29	{"a b",NULL,"\\""}
115	116	16.43	\N
116	117	16.57	{"a b",NULL,"\\""}
117	118	16.71	{"a b",NULL,"\\""}
118	119	16.86	{"a b",NULL,"\\""}
119	120	17.00	{"a b",NULL,"\\""}
120	1	17.14	\N
121	2	17.29	{"a b",NULL,"\\""}
122	3	17.43	{"a b",NULL,"\\""}
123	4	17.57	{"a b",NULL,"\\""}
124	5	17.71	{"a b",NULL,"\\""}
125	6	17.86	\N
126	7	18.00	{"a b",NULL,"\\""}
127	8	18.14	{"a b",NULL,"\\""}
128	9	18.29	{"a b",NULL,"\\""}
129	10	18.43	{"a b",NULL,"\\""}
130	11	18.57	\N
131	12	18.71	{"a b",NULL,"\\""}
132	13	18.86	{"a b",NULL,"\\""}
133	14	19.00	{"a b",NULL,"\\""}
134	15	19.14	{"a b",NULL,"\\""}
135	16	19.29	\N
136	17	19.43	{"a b",NULL,"\\""}
137	18	19.57	{"a b",NULL,"\\""}
138	19	19.71	{"a b",NULL,"\\""}
139	20	19.86	{"a b",NULL,"\\""}
140	21	20.00	\N
141	22	20.14	{"a b",NULL,"\\""}
142	23	20.29	{"a b",NULL,"\\""}
143	24	20.43	{"a b",NULL,"\\""}
144	25	20.57	{"a b",NULL,"\\""}
145	26	20.71	\N
146	27	20.86	{"a b",NULL,"\\""}
147	28	21.00	{"a b",NULL,"\\""}
148	29	21.14	{"a b",NULL,"\\""}
149	30	21.29	{"a b",NULL,"\\""}
150	31	21.43	\N
151	32	21.57	{"a b",NULL,"\\""}
152	33	21.71	{"a b",NULL,"\\""}
153	34	21.86	{"a b",NULL,"\\""}
154	35	22.00	{"a b",NULL,"\\""}
155	36	22.14	\N
156	37	22.29	{"a b",NULL,"\\""}
157	38	22.43	{"a b",NULL,"\\""}
158	39	22.57	{"a b",NULL,"\\""}
159	40	22.71	{"a b",NULL,"\\""}
160	41	22.86	\N
161	42	23.00	{"a b",NULL,"\\""}
162	43	23.14	{"a b",NULL,"\\""}
163	44	23.29	{"a b",NULL,"\\""}
164	45	23.43	{"a b",NULL,"\\""}
165	46	23.57	\N
166	47	23.71	{"a b",NULL,"\\""}
167	48	23.86	{"a b",NULL,"\\""}
168	49	24.00	{"a b",NULL,"\\""}
169	50	24.14	{"a b",NULL,"\\""}
170	51	24.29	\N
171	52	24.43	{"a b",NULL,"\\""}
172	53	24.57	{"a b",NULL,"\\""}
173	54	24.71	{"a b",NULL,"\\""}
174	55	24.86	{"a b",NULL,"\\""}
175	56	25.00	\N
176	57	25.14	{"a b",NULL,"\\""}
177	58	25.29	{"a b",NULL,"\\""}
178	59	25.43	{"a b",NULL,"\\""}
179	60	25.57	{"a b",NULL,"\\""}
180	61	25.71	\N
181	62	25.86	{"a b",NULL,"\\""}
182	63	26.00	{"a b",NULL,"\\""}
183	64	26.14	{"a b",NULL,"\\""}
184	65	26.29	{"a b",NULL,"\\""}
185	66	26.43	\N
186	67	26.57	{"a b",NULL,"\\""}
187	68	26.71	{"a b",NULL,"\\""}
188	69	26.86	{"a b",NULL,"\\""}
189	70	27.00	{"a b",NULL,"\\""}
190	71	27.14	\N
191	72	27.29	{"a b",NULL,"\\""}
192	73	27.43	{"a b",NULL,"\\""}
193	74	27.57	{"a b",NULL,"\\""}
194	75	27.71	{"a b",NULL,"\\""}
195	76	27.86	\N
196	77	28.00	{"a b",NULL,"\\""}
197	78	28.14	{"a b",NULL,"\\""}
198	79	28.29	{"a b",NULL,"\\""}
199	80	28.43	{"a b",NULL,"\\""}
200	81	28.57	\N
\.


--
-- Data for Name: parent; Type: TABLE DATA; Schema: s; Owner: postgres
--

COPY s.parent (id, mood, note, at) FROM stdin;
1	ok	line\n\\.\ttab 'q' "d" ü1	2026-11-22 00:01:00+00
2	ok	line\n\\.\ttab 'q' "d" ü2	2026-11-22 00:02:00+00
3	sad	line\n\\.\ttab 'q' "d" ü3	2026-11-22 00:03:00+00
4	ok	line\n\\.\ttab 'q' "d" ü4	2026-11-22 00:04:00+00
5	ok	line\n\\.\ttab 'q' "d" ü5	2026-11-22 00:05:00+00
6	sad	line\n\\.\ttab 'q' "d" ü6	2026-11-22 00:06:00+00
7	ok	line\n\\.\ttab 'q' "d" ü7	2026-11-22 00:07:00+00
8	ok	line\n\\.\ttab 'q' "d" ü8	2026-11-22 00:08:00+00
9	sad	line\n\\.\ttab 'q' "d" ü9	2026-11-22 00:09:00+00
10	ok	line\n\\.\ttab 'q' "d" ü10	2026-11-22 00:10:00+00
11	ok	line\n\\.\ttab 'q' "d" ü11	2026-11-22 00:11:00+00
12	sad	line\n\\.\ttab 'q' "d" ü12	2026-11-22 00:12:00+00
13	ok	line\n\\.\ttab 'q' "d" ü13	2026-11-22 00:13:00+00
14	ok	line\n\\.\ttab 'q' "d" ü14	2026-11-22 00:14:00+00
15	sad	line\n\\.\ttab 'q' "d" ü15	2026-11-22 00:15:00+00
16	ok	line\n\\.\ttab 'q' "d" ü16	2026-11-22 00:16:00+00
17	ok	line\n\\.\ttab 'q' "d" ü17	2026-11-22 00:17:00+00
18	sad	line\n\\.\ttab 'q' "d" ü18	2026-11-22 00:18:00+00
19	ok	line\n\\.\ttab 'q' "d" ü19	2026-11-22 00:19:00+00
20	ok	line\n\\.\ttab 'q' "d" ü20	2026-11-22 00:20:00+00
21	sad	line\n\\.\ttab 'q' "d" ü21	2026-11-22 00:21:00+00
22	ok	line\n\\.\ttab 'q' "d" ü22	2026-11-22 00:22:00+00
23	ok	line\n\\.\ttab 'q' "d" ü23	2026-11-22 00:23:00+00
24	sad	line\n\\.\ttab 'q' "d" ü24	2026-11-22 00:24:00+00
25	ok	line\n\\.\ttab 'q' "d" ü25	2026-11-22 00:25:00+00
26	ok	line\n\\.\ttab 'q' "d" ü26	2026-11-22 00:26:00+00
27	sad	line\n\\.\ttab 'q' "d" ü27	2026-11-22 00:27:00+00
28	ok	line\n\\.\ttab 'q' "d" ü28	2026-11-22 00:28:00+00
29	ok	line\n\\.\ttab 'q' "d" ü29	2026-11-22 00:29:00+00
30	sad	line\n\\.\ttab 'q' "d" ü30	2026-11-22 00:30:00+00
31	ok	line\n\\.\ttab 'q' "d" ü31	2026-11-22 00:31:00+00
32	ok	line\n\\.\ttab 'q' "d" ü32	2026-11-22 00:32:00+00
33	sad	line\n\\.\ttab 'q' "d" ü33	2026-11-22 00:33:00+00
34	ok	line\n\\.\ttab 'q' "d" ü34	2026-11-22 00:34:00+00
35	ok	line\n\\.\ttab 'q' "d" ü35	2026-11-22 00:35:00+00
36	sad	line\n\\.\ttab 'q' "d" ü36	2026-11-22 00:36:00+00
37	ok	line\n\\.\ttab 'q' "d" ü37	2026-11-22 00:37:00+00
38	ok	line\n\\.\ttab 'q' "d" ü38	2026-11-22 00:38:00+00
39	sad	line\n\\.\ttab 'q' "d" ü39	2026-11-22 00:39:00+00
40	ok	line\n\\.\ttab 'q' "d" ü40	2026-11-22 00:40:00+00
41	ok	line\n\\.\ttab 'q' "d" ü41	2026-11-22 00:41:00+00
42	sad	line\n\\.\ttab 'q' "d" ü42	2026-11-22 00:42:00+00
43	ok	line\n\\.\ttab 'q' "d" ü43	2026-11-22 00:43:00+00
44	ok	line\n\\.\ttab 'q' "d" ü44	2026-11-22 00:44:00+00
45	sad	line\n\\.\ttab 'q' "d" ü45	2026-11-22 00:45:00+00
46	ok	line\n\\.\ttab 'q' "d" ü46	2026-11-22 00:46:00+00
47	ok	line\n\\.\ttab 'q' "d" ü47	2026-11-22 00:47:00+00
48	sad	line\n\\.\ttab 'q' "d" ü48	2026-11-22 00:48:00+00
49	ok	line\n\\.\ttab 'q' "d" ü49	2026-11-22 00:49:00+00
50	ok	line\n\\.\ttab 'q' "d" ü50	2026-11-22 00:50:00+00
51	sad	line\n\\.\ttab 'q' "d" ü51	2026-11-22 00:51:00+00
52	ok	line\n\\.\ttab 'q' "d" ü52	2026-11-22 00:52:00+00
53	ok	line\n\\.\ttab 'q' "d" ü53	2026-11-22 00:53:00+00
54	sad	line\n\\.\ttab 'q' "d" ü54	2026-11-22 00:54:00+00
55	ok	line\n\\.\ttab 'q' "d" ü55	2026-11-22 00:55:00+00
56	ok	line\n\\.\ttab 'q' "d" ü56	2026-11-22 00:56:00+00
57	sad	line\n\\.\ttab 'q' "d" ü57	2026-11-22 00:57:00+00
58	ok	line\n\\.\ttab 'q' "d" ü58	2026-11-22 00:58:00+00
59	ok	line\n\\.\ttab 'q' "d" ü59	2026-11-22 00:59:00+00
60	sad	line\n\\.\ttab 'q' "d" ü60	2026-11-22 01:00:00+00
61	ok	line\n\\.\ttab 'q' "d" ü61	2026-11-22 01:01:00+00
62	ok	line\n\\.\ttab 'q' "d" ü62	2026-11-22 01:02:00+00
63	sad	line\n\\.\ttab 'q' "d" ü63	2026-11-22 01:03:00+00
64	ok	line\n\\.\ttab 'q' "d" ü64	2026-11-22 01:04:00+00
65	ok	line\n\\.\ttab 'q' "d" ü65	2026-11-22 01:05:00+00
66	sad	line\n\\.\ttab 'q' "d" ü66	2026-11-22 01:06:00+00
67	ok	line\n\\.\ttab 'q' "d" ü67	2026-11-22 01:07:00+00
68	ok	line\n\\.\ttab 'q' "d" ü68	2026-11-22 01:08:00+00
69	sad	line\n\\.\ttab 'q' "d" ü69	2026-11-22 01:09:00+00
70	ok	line\n\\.\ttab 'q' "d" ü70	2026-11-22 01:10:00+00
71	ok	line\n\\.\ttab 'q' "d" ü71	2026-11-22 01:11:00+00
72	sad	line\n\\.\ttab 'q' "d" ü72	2026-11-22 01:12:00+00
73	ok	line\n\\.\ttab 'q' "d" ü73	2026-11-22 01:13:00+00
74	ok	line\n\\.\ttab 'q' "d" ü74	2026-11-22 01:14:00+00
75	sad	line\n\\.\ttab 'q' "d" ü75	2026-11-22 01:15:00+00
76	ok	line\n\\.\ttab 'q' "d" ü76	2026-11-22 01:16:00+00
77	ok	line\n\\.\ttab 'q' "d" ü77	2026-11-22 01:17:00+00
78	sad	line\n\\.\ttab 'q' "d" ü78	2026-11-22 01:18:00+00
79	ok	line\n\\.\ttab 'q' "d" ü79	2026-11-22 01:19:00+00
80	ok	line\n\\.\ttab 'q' "d" ü80	2026-11-22 01:20:00+00
81	sad	line\n\\.\ttab 'q' "d" ü81	2026-11-22 01:21:00+00
82	ok	line\n\\.\ttab 'q' "d" ü82	2026-11-22 01:22:00+00
83	ok	line\n\\.\ttab 'q' "d" ü83	2026-11-22 01:23:00+00
84	sad	line\n\\.\ttab 'q' "d" ü84	2026-11-22 01:24:00+00
85	ok	line\n\\.\ttab 'q' "d" ü85	2026-11-22 01:25:00+00
86	ok	line\n\\.\ttab 'q' "d" ü86	2026-11-22 01:26:00+00
87	sad	line\n\\.\ttab 'q' "d" ü87	2026-11-22 01:27:00+00
88	ok	line\n\\.\ttab 'q' "d" ü88	2026-11-22 01:28:00+00
89	ok	line\n\\.\ttab 'q' "d" ü89	2026-11-22 01:29:00+00
90	sad	line\n\\.\ttab 'q' "d" ü90	2026-11-22 01:30:00+00
91	ok	line\n\\.\ttab 'q' "d" ü91	2026-11-22 01:31:00+00
92	ok	line\n\\.\ttab 'q' "d" ü92	2026-11-22 01:32:00+00
93	sad	line\n\\.\ttab 'q' "d" ü93	2026-11-22 01:33:00+00
94	ok	line\n\\.\ttab 'q' "d" ü94	2026-11-22 01:34:00+00
95	ok	line\n\\.\ttab 'q' "d" ü95	2026-11-22 01:35:00+00
96	sad	line\n\\.\ttab 'q' "d" ü96	2026-11-22 01:36:00+00
97	ok	line\n\\.\ttab 'q' "d" ü97	2026-11-22 01:37:00+00
98	ok	line\n\\.\ttab 'q' "d" ü98	2026-11-22 01:38:00+00
99	sad	line\n\\.\ttab 'q' "d" ü99	2026-11-22 01:39:00+00
100	ok	line\n\\.\ttab 'q' "d" ü100	2026-11-22 01:40:00+00
101	ok	line\n\\.\ttab 'q' "d" ü101	2026-11-22 01:41:00+00
102	sad	line\n\\.\ttab 'q' "d" ü102	2026-11-22 01:42:00+00
103	ok	line\n\\.\ttab 'q' "d" ü103	2026-11-22 01:43:00+00
104	ok	line\n\\.\ttab 'q' "d" ü104	2026-11-22 01:44:00+00
105	sad	line\n\\.\ttab 'q' "d" ü105	2026-11-22 01:45:00+00
106	ok	line\n\\.\ttab 'q' "d" ü106	2026-11-22 01:46:00+00
107	ok	line\n\\.\ttab 'q' "d" ü107	2026-11-22 01:47:00+00
108	sad	line\n\\.\ttab 'q' "d" ü108	2026-11-22 01:48:00+00
109	ok	line\n\\.\ttab 'q' "d" ü109	2026-11-22 01:49:00+00
110	ok	line\n\\.\ttab 'q' "d" ü110	2026-11-22 01:50:00+00
111	sad	line\n\\.\ttab 'q' "d" ü111	2026-11-22 01:51:00+00
112	ok	line\n\\.\ttab 'q' "d" ü112	2026-11-22 01:52:00+00
113	ok	line\n\\.\ttab 'q' "d" ü113	2026-11-22 01:53:00+00
114	sad	line\n\\.\ttab 'q' "d" ü114	2026-11-22 01:54:00+00
115	ok	line\n\\.\ttab 'q' "d" ü115	2026-11-22 01:55:00+00
116	ok	line\n\\.\ttab 'q' "d" ü116	2026-11-22 01:56:00+00
117	sad	line\n\\.\ttab 'q' "d" ü117	2026-11-22 01:57:00+00
118	ok	line\n\\.\ttab 'q' "d" ü118	2026-11-22 01:58:00+00
119	ok	line\n\\.\ttab 'q' "d" ü119	2026-11-22 01:59:00+00
120	sad	line\n\\.\ttab 'q' "d" ü120	2026-11-22 02:00:00+00
\.


--
-- Data for Name: part_1; Type: TABLE DATA; Schema: s; Owner: postgres
--

COPY s.part_1 (a, b) FROM stdin;
50	c0c7c76d30bd3dcaefc96f40275bdc0a
51	2838023a778dfaecdc212708f721b788
52	9a1158154dfa42caddbd0694a4e9bdc8
53	d82c8d1619ad8176d665453cfb2e55f0
54	a684eceee76fc522773286a895bc8436
55	b53b3a3d6ab90ce0268229151c9bde11
56	9f61408e3afb633e50cdf1b20de6f466
57	72b32a1f754ba1c09b3695e0cb6cde7f
58	66f041e16a60928b05a7e228a89c3799
59	093f65e080a295f8076b1c5722a46aa2
60	072b030ba126b2f4b2374f342be9ed44
61	7f39f8317fbdb1988ef4c628eba02591
62	44f683a84163b3523afe57c2e008bc8c
63	03afdbd66e7929b125f8597834fa83a4
64	ea5d2f1c4608232e07d3aa3d998e5135
65	fc490ca45c00b1249bbe3554a4fdf6fb
66	3295c76acbf4caaed33c36b1b5fc2cb1
67	735b90b4568125ed6c3f678819b6e058
68	a3f390d88e4c41f2747bfa2f1b5f87db
69	14bfa6bb14875e45bba028a21ed38046
70	7cbbc409ec990f19c78c75bd1e06f215
71	e2c420d928d4bf8ce0ff2ec19b371514
72	32bb90e8976aab5298d5da10fe66f21d
73	d2ddea18f00665ce8623e36bd4e3c7c5
74	ad61ab143223efbc24c7d2583be69251
75	d09bf41544a3365a46c9077ebb5e35c3
76	fbd7939d674997cdb4692d34de8633c4
77	28dd2c7955ce926456240b2ff0100bde
78	35f4a8d465e6e1edc05f3d8ab658c551
79	d1fe173d08e959397adf34b1d77e88d7
80	f033ab37c30201f73f142449d037028d
81	43ec517d68b6edd3015b3edc9a11367b
82	9778d5d219c5080b9a6a17bef029331c
83	fe9fc289c3ff0af142b6d3bead98a923
84	68d30a9594728bc39aa24be94b319d21
85	3ef815416f775098fe977004015c6193
86	93db85ed909c13838ff95ccfa94cebd9
87	c7e1249ffc03eb9ded908c236bd1996d
88	2a38a4a9316c49e5a833517c45d31070
89	7647966b7343c29048673252e490f736
90	8613985ec49eb8f757ae6439e879bb2a
91	54229abfcfa5649e7003b83dd4755294
92	92cc227532d17e56e07902b254dfad10
93	98dce83da57b0395e163467c9dae521b
94	f4b9ec30ad9f68f89b29639786cb62ef
95	812b4ba287f5ee0bc9d43bbf5bbe87fb
96	26657d5ff9020d2abefe558796b99584
97	e2ef524fbf3d9fe611d5a8e90fefdc9c
98	ed3d2c21991e3bef5e069713af9fa6ca
99	ac627ab1ccbdb62ec96e702f07f6425b
\.


--
-- Data for Name: part_2; Type: TABLE DATA; Schema: s; Owner: postgres
--

COPY s.part_2 (a, b) FROM stdin;
100	f899139df5e1059396431415e770c6dd
101	38b3eff8baf56627478ec76a704e9b52
102	ec8956637a99787bd197eacd77acce5e
103	6974ce5ac660610b44d9b9fed0ff9548
104	c9e1074f5b3f9fc8ea15d152add07294
105	65b9eea6e1cc6bb9f0cd2a47751a186f
106	f0935e4cd5920aa6c7c996a5ee53a70f
107	a97da629b098b75c294dffdc3e463904
108	a3c65c2974270fd093ee8a9bf8ae7d0b
109	2723d092b63885e0d7c260cc007e8b9d
110	5f93f983524def3dca464469d2cf9f3e
111	698d51a19d8a121ce581499d7b701668
112	7f6ffaa6bb0b408017b62254211691b5
113	73278a4a86960eeb576a8fd4c9ec6997
114	5fd0b37cd7dbbb00f97ba6ce92bf5add
115	2b44928ae11fb9384c4cf38708677c48
116	c45147dee729311ef5b5c3003946c48f
117	eb160de1de89d9058fcb0b968dbbbd68
118	5ef059938ba799aaa845e1c2e8a762bd
119	07e1cd7dca89a1678042477183b7ac3f
120	da4fb5c6e93e74d3df8527599fa62642
121	4c56ff4ce4aaf9573aa5dff913df997a
122	a0a080f42e6f13b3a2df133f073095dd
123	202cb962ac59075b964b07152d234b70
124	c8ffe9a587b126f152ed3d89a146b445
125	3def184ad8f4755ff269862ea77393dd
126	069059b7ef840f0c74a814ec9237b6ec
127	ec5decca5ed3d6b8079e2e7e7bacc9f2
128	76dc611d6ebaafc66cc0879c71b5db5c
129	d1f491a404d6854880943e5c3cd9ca25
130	9b8619251a19057cff70779273e95aa6
131	1afa34a7f984eeabdbb0a7d494132ee5
132	65ded5353c5ee48d0b7d48c591b8f430
133	9fc3d7152ba9336a670e36d0ed79bc43
134	02522a2b2726fb0a03bb19f2d8d9524d
135	7f1de29e6da19d22b51c68001e7e0e54
136	42a0e188f5033bc65bf8d78622277c4e
137	3988c7f88ebcb58c6ce932b957b6f332
138	013d407166ec4fa56eb1e1f8cbe183b9
139	e00da03b685a0dd18fb6a08af0923de0
140	1385974ed5904a438616ff7bdb3f7439
141	0f28b5d49b3020afeecd95b4009adf4c
142	a8baa56554f96369ab93e4f3bb068c22
143	903ce9225fca3e988c2af215d4e544d3
144	0a09c8844ba8f0936c20bd791130d6b6
145	2b24d495052a8ce66358eb576b8912c8
146	a5e00132373a7031000fd987a3c9f87b
147	8d5e957f297893487bd98fa830fa6413
148	47d1e990583c9c67424d369f3414728e
149	f2217062e9a397a1dca429e7d70bc6ca
150	7ef605fc8dba5425d6965fbd4c8fbe1f
\.


--
-- Name: child_id_seq; Type: SEQUENCE SET; Schema: s; Owner: postgres
--

SELECT pg_catalog.setval('s.child_id_seq', 200, true);


--
-- Name: parent_id_seq; Type: SEQUENCE SET; Schema: s; Owner: postgres
--

SELECT pg_catalog.setval('s.parent_id_seq', 120, true);


--
-- Data for Name: BLOBS; Type: BLOBS; Schema: -; Owner: -
--

BEGIN;

SELECT pg_catalog.lo_open('9001', 131072);
SELECT pg_catalog.lowrite(0, '\xc0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffeec0ffee');
SELECT pg_catalog.lo_close(0);

SELECT pg_catalog.lo_open('9002', 131072);
SELECT pg_catalog.lo_close(0);

COMMIT;

--
-- Name: parent parent_pkey; Type: CONSTRAINT; Schema: s; Owner: postgres
--

ALTER TABLE ONLY s.parent
    ADD CONSTRAINT parent_pkey PRIMARY KEY (id);


--
-- Name: child_parent; Type: INDEX; Schema: s; Owner: postgres
--

CREATE INDEX child_parent ON s.child USING btree (parent_id) WHERE (v > (1)::numeric);


--
-- Name: part_b; Type: INDEX; Schema: s; Owner: postgres
--

CREATE INDEX part_b ON ONLY s.part USING btree (b);


--
-- Name: part_1_b_idx; Type: INDEX; Schema: s; Owner: postgres
--

CREATE INDEX part_1_b_idx ON s.part_1 USING btree (b);


--
-- Name: part_2_b_idx; Type: INDEX; Schema: s; Owner: postgres
--

CREATE INDEX part_2_b_idx ON s.part_2 USING btree (b);


--
-- Name: part_1_b_idx; Type: INDEX ATTACH; Schema: s; Owner: postgres
--

ALTER INDEX s.part_b ATTACH PARTITION s.part_1_b_idx;


--
-- Name: part_2_b_idx; Type: INDEX ATTACH; Schema: s; Owner: postgres
--

ALTER INDEX s.part_b ATTACH PARTITION s.part_2_b_idx;


--
-- Name: child nothing; Type: TRIGGER; Schema: s; Owner: postgres
--

CREATE TRIGGER nothing BEFORE UPDATE ON s.child FOR EACH ROW EXECUTE FUNCTION suppress_redundant_updates_trigger();


--
-- Name: child child_parent_id_fkey; Type: FK CONSTRAINT; Schema: s; Owner: postgres
--

ALTER TABLE ONLY s.child
    ADD CONSTRAINT child_parent_id_fkey FOREIGN KEY (parent_id) REFERENCES s.parent(id);


--
-- Name: counts; Type: MATERIALIZED VIEW DATA; Schema: s; Owner: postgres
--

REFRESH MATERIALIZED VIEW s.counts;


--
-- PostgreSQL database dump complete
--

\unrestrict 8754etgQhjQelTBGfMb3d1gWD4JoNRACAkJthY2zO1xPBnLR52vdBn4dtvnNN6r

